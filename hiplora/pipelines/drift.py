"""Pipeline ``drift``: how far training moves the leading subspaces that were cached before it (Table 15)."""

from __future__ import annotations

from typing import ClassVar

from hiplora.config import Positive
from hiplora.pipelines.base import Config, Pipeline, Stages, training
from hiplora.stages.drift import Drift
from hiplora.stages.make import Wanted


class DriftOfAdapter(Pipeline):
    """Drift of one adapter's ``k`` leading directions, also at the fractions of ``training.snapshots``."""

    unscaled: ClassVar[bool] = True

    k: Positive

    def stages(self, config: Config) -> Stages:
        train = training(config)
        return [Wanted(train), Wanted(Drift(of=train, svd=config.svd, k=self.k, fractions=config.training.snapshots))]
