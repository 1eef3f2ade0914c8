"""Pipeline ``edit``: edit batches of facts, one adapter each; measure success and side effects (Tables 8 and 10)."""

from __future__ import annotations

from collections.abc import Collection
from typing import Annotated, Literal

from pydantic import Field

from hiplora.config import Positive
from hiplora.errors import UserError
from hiplora.pipelines.base import Config, Pipeline, Stages, put_on, training
from hiplora.stages.base import Source
from hiplora.stages.edit import Edit
from hiplora.stages.make import Wanted
from hiplora.stages.sources import Backbone
from hiplora.tasks.edits import EditBatch


class EditFacts(Pipeline):
    """Each batch of the section ``edits`` is a training of its own, compared with the bare backbone.

    ``probes`` (benchmark → number of items) are unrelated prompts from the split ``splits`` whose answers should not
    change.
    """

    probes: Annotated[dict[str, Positive], Field(min_length=1)]
    splits: Literal["validation", "test"]

    @property
    def sets(self) -> Collection[str]:
        return ("evaluation.splits", "evaluation.likelihood_only")

    def stages(self, config: Config) -> Stages:
        batches = config.edits.cut()
        base = self._measured(config, Backbone(model=config.model), batches)
        asked = [Wanted(base, shared=True)]
        for batch in batches:
            train = training(config, task=batch)
            asked += [Wanted(train), Wanted(self._measured(config, put_on(train, config.adapter_scale), (batch,)))]
        return asked

    def _measured(self, config: Config, of: Source, batches: tuple[EditBatch, ...]) -> Edit:
        tasks = {task.name: task for task in config.benchmarks if "acc" in task.measured}
        if unknown := [name for name in self.probes if name not in tasks]:
            raise UserError(
                f"pipeline.probes names {', '.join(unknown)}, which has no accuracy over single answers; choose among "
                f"{', '.join(tasks)}."
            )
        limit = config.evaluation.limit
        return Edit(
            of=of,
            batches=batches,
            probes={name: count if limit is None else min(count, limit) for name, count in self.probes.items()},
            benchmarks=tuple(tasks[name] for name in self.probes),
            evaluation=config.evaluation.but(splits=self.splits, likelihood_only=False),
            data=config.data,
        )
