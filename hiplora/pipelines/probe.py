"""Pipeline ``probe``: scores with one singular direction perturbed at a time (Tables 3 and 6, Figure 6)."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from hiplora.config import Positive
from hiplora.errors import UserError
from hiplora.pipelines.base import Config, Pipeline, Stages
from hiplora.stages.make import Wanted
from hiplora.stages.probe import Perturbation, Probe
from hiplora.tasks.choice import ChoiceTask


class ProbeBackbone(Pipeline):
    """One probe of the backbone; the options are those of :class:`~hiplora.stages.probe.Probe`.

    ``benchmarks`` names the multiple-choice benchmarks to score, ``items`` the number of items of each. The backbone
    computes in float32, because one direction changes less than bfloat16 rounds off.
    """

    unscaled: ClassVar[bool] = True

    k: Positive
    layers: Positive
    count: dict[Perturbation, Positive]
    strength: Annotated[float, Field(gt=0, le=10, examples=[0.1])]
    benchmarks: Annotated[tuple[str, ...], Field(strict=False, min_length=1)]
    items: Positive

    def check_options(self) -> None:
        self.check_distinct("benchmarks")

    def stages(self, config: Config) -> Stages:
        tasks = {task.name: task for task in config.benchmarks if isinstance(task, ChoiceTask) and task.choosing}
        if unknown := [name for name in self.benchmarks if name not in tasks]:
            raise UserError(
                f"pipeline.benchmarks names {', '.join(unknown)}, which is not multiple choice; "
                f"choose among {', '.join(tasks)}."
            )
        if config.model.arithmetic == "bfloat16":
            raise UserError(
                "pipeline=probe computes in float32, because one direction changes less than bfloat16 rounds off; "
                "leave model.arithmetic=bfloat16 out."
            )
        limit = self.items if config.evaluation.limit is None else min(self.items, config.evaluation.limit)
        probe = Probe(
            model=config.model.but(arithmetic="float32"),
            targets=config.model.target_modules,
            svd=config.svd,
            k=self.k,
            layers=self.layers,
            count=self.count,
            strength=self.strength,
            seed=config.seed,
            benchmarks=tuple(tasks[name] for name in self.benchmarks),
            evaluation=config.evaluation.but(limit=limit),
            data=config.data,
        )
        return [Wanted(probe)]
