"""Pipeline ``single``, the main job: train one adapter on one task, score it on all, print its Retain (Table 1)."""

from __future__ import annotations

from typing import ClassVar

from hiplora.pipelines.base import Config, Pipeline, Stages, scores, training
from hiplora.stages.make import Wanted
from hiplora.stages.sources import Backbone


class Single(Pipeline):
    """Train, evaluate, retain. The backbone's scores are shared by all runs."""

    with_lm_tasks: ClassVar[bool] = True
    with_retain: ClassVar[bool] = True

    def stages(self, config: Config) -> Stages:
        train = training(config)
        base = scores(config, Backbone(model=config.model))
        return [Wanted(train), Wanted(base, shared=True), Wanted(scores(config, train))]
