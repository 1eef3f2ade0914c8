"""Pipeline ``efficiency``: speed and memory of training with each of several methods on this machine (Table 5)."""

from __future__ import annotations

from collections.abc import Collection
from typing import Annotated, ClassVar

from pydantic import Field

from hiplora.config import Natural, Positive
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

    @property
    def sets(self) -> Collection[str]:
        return ("method",)

    def check_options(self) -> None:
        self.check_distinct("methods")

    def stages(self, config: Config) -> Stages:
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
