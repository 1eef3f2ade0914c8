"""Pipeline ``train``: only train; the adapter is left under ``outputs/adapters``."""

from __future__ import annotations

from typing import ClassVar

from hiplora.pipelines.base import Config, Pipeline, Stages, training
from hiplora.stages.make import Wanted


class TrainOnly(Pipeline):
    """One training."""

    unscaled: ClassVar[bool] = True

    def stages(self, config: Config) -> Stages:
        return [Wanted(training(config))]
