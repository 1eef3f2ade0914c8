"""Pipeline ``continual``: one adapter through several tasks, scored on all of them after each (Tables 7 and 9).

Each training is a stage whose parent is the training before, so an interrupted run resumes in the stage that it was in.
The first training is that of a single run on its task; the bare backbone is row 0 of the matrix.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from hiplora.errors import UserError
from hiplora.pipelines.base import Config, Pipeline, Stages, scores, training
from hiplora.stages.make import Wanted
from hiplora.stages.sources import Backbone
from hiplora.stages.train import Train
from hiplora.tasks import ORDER, TASKS


class Continual(Pipeline):
    """``order`` names the tasks in training order; ``optimizer`` says with which state of AdamW each later task starts.

    reset: a fresh state. carry: the moments and step counts of the task before; each task still has its own warm-up.
    """

    unscaled: ClassVar[bool] = True
    with_lm_tasks: ClassVar[bool] = True

    order: Annotated[tuple[str, ...], Field(strict=False, min_length=1)]
    optimizer: Literal["reset", "carry"]

    def check_options(self) -> None:
        if unknown := [name for name in self.order if name not in TASKS]:
            raise UserError(f"pipeline.order names {', '.join(unknown)}; choose among {', '.join(TASKS)}.")
        self.check_distinct("order")

    @property
    def also_scored(self) -> tuple[str, ...]:
        return self.order

    def stages(self, config: Config) -> Stages:
        columns = tuple(task for task in config.benchmarks if task.name in (*ORDER, *self.order))
        tasks = {task.name: task.but(template=config.task.template or task.template) for task in columns}
        config = config.but(benchmarks=columns)
        carry = self.optimizer == "carry"
        asked = [Wanted(scores(config, Backbone(model=config.model)), shared=True)]
        train: Train | None = None
        for name in self.order:
            later = train is not None
            train = training(config, task=tasks[name], parent=train)
            if later:  # no snapshot of a later training is ever scored, and each takes the space of an adapter
                train = train.but(training=train.training.but(snapshots=()))
            if carry:
                train = train.but(keep_optimizer=True, optimizer="carry" if later else "reset")
            asked += [Wanted(train), Wanted(scores(config, train))]
        return asked
