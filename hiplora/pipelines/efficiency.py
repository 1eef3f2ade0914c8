"""Pipeline ``efficiency``: speed and memory of training with each of several methods on this machine (Table 5)."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from hiplora.config import Natural, Positive
from hiplora.errors import UserError
from hiplora.pipelines.base import Config, Pipeline, Stages
from hiplora.stages.efficiency import Efficiency
from hiplora.stages.make import Wanted


class EfficiencyOfMethods(Pipeline):
    """Each of ``methods`` trains ``steps`` steps after ``warmup``, ``repetitions`` times.

    Methods keep their settings of conf/method: an override of one method's option would mean nothing to the others.
    """

    unscaled: ClassVar[bool] = True

    methods: Annotated[tuple[str, ...], Field(strict=False, min_length=1)]
    steps: Positive
    warmup: Natural
    repetitions: Positive

    def stages(self, config: Config) -> Stages:
        if ignored := [word for word in config.words if word.lstrip("+~").startswith("method.")]:
            raise UserError(
                f"{ignored[0]} would be ignored: pipeline=efficiency trains each of pipeline.methods as conf/method "
                "has it; leave it out, or change conf/method."
            )
        stage = Efficiency(
            methods={name: config.other(f"method={name}").method for name in self.methods},
            task=config.task.as_trained(),
            seed=config.seed,
            model=config.model,
            targets=config.model.target_modules,
            svd=config.svd,
            training=config.training.but(steps=self.steps),
            warmup=self.warmup,
            repetitions=self.repetitions,
            data=config.data,
        )
        return [Wanted(stage)]
