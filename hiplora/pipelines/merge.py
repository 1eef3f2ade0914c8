"""Pipeline ``merge``: separately trained adapters, merged and scored on their tasks (Tables 2, 13, 14, MergeFail).

One run draws the instances of one sampling seed: task subsets of several sizes, and for each task one of its training
seeds. The draw depends on nothing else, so every method and operator merges the same tuples.
"""

from __future__ import annotations

import itertools
import random
from typing import Annotated

from pydantic import Field

from hiplora.config import Positive, Seed
from hiplora.errors import UserError
from hiplora.pipelines.base import Config, Pipeline, Stages, scores, training
from hiplora.stages.make import Wanted
from hiplora.stages.score import Score
from hiplora.stages.sources import Merged
from hiplora.stages.train import Train
from hiplora.tasks import ORDER, TASKS
from hiplora.tasks.base import Task

Member = tuple[str, int]  # (task, training seed)
Instance = tuple[Member, ...]
Size = Annotated[int, Field(ge=2, le=len(ORDER))]


class Merge(Pipeline):
    """``sizes`` of the task subsets, ``instances`` drawn per size, ``training_seeds`` to draw from.

    ``members`` are tasks that every instance contains, possibly outside the four; its other tasks are drawn.
    """

    sizes: Annotated[tuple[Size, ...], Field(strict=False, min_length=1)]
    instances: Positive
    training_seeds: Annotated[tuple[Seed, ...], Field(strict=False, min_length=1)]
    members: Annotated[tuple[str, ...], Field(strict=False)]

    def check_options(self) -> None:
        self.check_distinct("sizes", "training_seeds", "members")
        if unknown := [name for name in self.members if name not in TASKS]:
            raise UserError(f"pipeline.members names {', '.join(unknown)}; choose among {', '.join(TASKS)}.")
        if len(self.members) > min(self.sizes):
            raise UserError(
                f"pipeline.members has {len(self.members)} tasks, more than a size in merging.sizes="
                f"{list(self.sizes)}; type larger sizes."
            )

    @classmethod
    def typed_as(cls, field: str) -> str:
        """``pipeline.members``; the other fields are set in the section ``merging``, by conf/scale."""
        return f"pipeline.{field}" if field == "members" else f"merging.{field}"

    @property
    def also_scored(self) -> tuple[str, ...]:
        return self.members

    def stages(self, config: Config) -> Stages:
        """Scores of each member alone, before merging; then of each instance's merged model on the members' tasks."""
        tasks = {task.name: task for task in config.benchmarks}
        drawn = draw(self, seed=config.seed)
        trained = {member: _member(config, tasks, member) for instance in drawn for member in instance}
        before = [
            Wanted(scores(of_task(config, tasks[task]), train), shared=True)
            for (task, _), train in sorted(trained.items())
        ]
        after = [Wanted(_instance(config, tasks, [trained[member] for member in instance])) for instance in drawn]
        return [*before, *after]


def draw(merging: Merge, *, seed: int) -> list[Instance]:
    """The merge instances of one sampling seed, in order of size.

    For each size, ``instances`` distinct tuples are drawn without replacement, or all if there are fewer. Every tuple
    begins with the ``members``.
    """
    fixed, others = merging.members, [task for task in ORDER if task not in merging.members]
    drawn: list[Instance] = []
    for size in merging.sizes:
        every = [
            tuple(zip((*fixed, *tasks), seeds, strict=True))
            for tasks in itertools.combinations(others, size - len(fixed))
            for seeds in itertools.product(merging.training_seeds, repeat=size)
        ]
        count = min(merging.instances, len(every))
        drawn += sorted(random.Random(f"{seed}/{size}").sample(every, count))
    return drawn


def _member(config: Config, tasks: dict[str, Task], member: Member) -> Train:
    name, seed = member
    return training(of_task(config, tasks[name]), seed=seed)


def of_task(config: Config, task: Task) -> Config:
    """The configuration of the single run of a task, with the template that the user chose.

    All other benchmarks go back to target=answer, as in that run.
    """
    others = tuple(each if each.name == task.name else each.but(target="answer") for each in config.benchmarks)
    return config.but(task=task.but(template=config.task.template), benchmarks=others)


def _instance(config: Config, tasks: dict[str, Task], members: list[Train]) -> Score:
    """The score of a merged model on the members' tasks, each in the form that its adapter was trained on."""
    scale = config.adapter_scale
    scales = None if scale == 1 else (scale,) * len(members)
    return Score(
        of=Merged(adapters=tuple(members), operator=config.merge, scales=scales),
        benchmarks=tuple(tasks[train.task.name] for train in members),
        evaluation=config.evaluation,
        data=config.data,
    )
