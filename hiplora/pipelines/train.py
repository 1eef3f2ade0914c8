"""Pipeline ``train``: only train, which leaves an adapter under ``outputs/adapters``."""

from __future__ import annotations

from hiplora.pipelines.base import Config, Pipeline, Stages, training
from hiplora.stages.make import Wanted


class TrainOnly(Pipeline):
    """One training."""

    def stages(self, config: Config) -> Stages:
        return [Wanted(training(config))]
