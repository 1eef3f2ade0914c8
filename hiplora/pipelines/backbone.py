"""Pipeline ``backbone``: score only the unadapted backbone, the reference of every Retain."""

from __future__ import annotations

from typing import ClassVar

from hiplora.pipelines.base import Config, Pipeline, Stages, scores
from hiplora.stages.make import Wanted
from hiplora.stages.sources import Backbone


class BackboneOnly(Pipeline):
    """One score."""

    unscaled: ClassVar[bool] = True
    with_lm_tasks: ClassVar[bool] = True

    def stages(self, config: Config) -> Stages:
        return [Wanted(scores(config, Backbone(model=config.model)))]
