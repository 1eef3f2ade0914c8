"""Pipeline ``efficiency``: speed and memory of training with each of several methods on this machine (Table 5)."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from hiplora.config import Natural, Positive
from hiplora.errors import UserError
from hiplora.methods.base import Method
from hiplora.pipelines.base import Config, Pipeline, Stages
from hiplora.stages.efficiency import Efficiency
from hiplora.stages.make import Wanted


class EfficiencyOfMethods(Pipeline):
    """Each of ``methods`` trains ``steps`` steps after ``warmup``, ``repetitions`` times, with one ``dropout`` rate.

    Methods keep their other settings of conf/: an override of one method's option would mean nothing to the others.
    """

    unscaled: ClassVar[bool] = True

    methods: Annotated[tuple[str, ...], Field(strict=False, min_length=1)]
    steps: Positive
    warmup: Natural
    repetitions: Positive
    dropout: Annotated[float, Field(ge=0, lt=1)]

    def stages(self, config: Config) -> Stages:
        if ignored := [word for word in config.words if word.lstrip("+~").startswith("method.")]:
            raise UserError(
                f"{ignored[0]} would be ignored: pipeline=efficiency trains each of pipeline.methods as conf/method "
                "has it; leave it out, or change conf/method."
            )
        stage = Efficiency(
            methods={name: self._method(config, name) for name in self.methods},
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

    def _method(self, config: Config, name: str) -> Method:
        """A method as conf/ has it, but for dropout, whose masks would cost one method what another does without."""
        method = config.other(f"method={name}").method
        return method.but(dropout=self.dropout) if "dropout" in type(method).model_fields else method
