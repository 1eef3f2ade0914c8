"""Records without a model: what a training learns and forgets follows from its settings by a formula."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hiplora.pipelines.base import Config
from hiplora.stages.base import Stage
from hiplora.stages.frontier import Frontier
from hiplora.stages.record import Record, write
from hiplora.stages.results import Adapter, Point, Result
from hiplora.stages.results import Frontier as Points
from hiplora.stages.sources import Backbone
from hiplora.stages.train import Train

TASKS = ("mmlu", "scienceqa", "gsm8k", "code")
BARE = 3.0  # own NLL of the backbone

# (gain in own NLL at c = 1, harm at c = 1, share of the principal channel) of a training
World = Callable[[Train], tuple[float, float, float]]


def small_grid(*names: str, **stages: str) -> list[str]:
    """Overrides that leave only these methods of the grid, with other stages."""
    others = [f"~pipeline.methods.{name}" for name in ALL if name not in names]
    return ["pipeline=select", *others, *(f"pipeline.methods.{name}.stages={text}" for name, text in stages.items())]


ALL = ("lora", "proj", "hip", "hip_no_stability", "pissa", "adalora", "dora", "split")


class Answers:
    """Answers for stages; ``asked`` are the batches in which a pipeline asked for them."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.asked: list[list[Stage]] = []

    def drive(self, config: Config) -> dict[str, Record]:
        """All records that a pipeline asks for, by id; those of frontiers are written, as later runs read them."""
        steps: Any = config.stages()
        found: dict[str, Record] = {}
        batch = next(steps)
        while True:
            batch = batch if isinstance(batch, list) else [batch]
            self.asked.append([wanted.stage for wanted in batch])
            records = [self.record(wanted.stage) for wanted in batch]
            found |= {record.id: record for record in records}
            try:
                batch = steps.send(records)
            except StopIteration:
                for record in found.values():
                    if record.kind == Frontier.kind:
                        write(config.places.tracked / record.kind, record, [])
                return found

    def record(self, stage: Stage) -> Record:
        return Record(
            kind=stage.kind, id=stage.id, where="here", name=stage.name(), asked=stage.described(), needs={},
            digest="d", environment={}, started="", result=self.result(stage),
        )  # fmt: skip

    def result(self, stage: Stage) -> Result:
        if isinstance(stage, Train):
            return Adapter.model_construct(measures={"channel_share": self.world(stage)[2]})
        assert isinstance(stage, Frontier)
        if isinstance(stage.of, Backbone):
            return Points(points=[point(0.0, 0.0, 0.0, TASKS)], seconds=1)
        gain, harm, _ = self.world(stage.of)
        return Points(points=[point(c, gain, harm, [stage.of.task.name]) for c in stage.scales], seconds=1)


def point(c: float, gain: float, harm: float, tasks: Any) -> Point:
    """Learning is linear in c, harm quadratic; text rises by the harm, other benchmarks by twice as much."""
    return Point(
        scale=c,
        fraction=1.0 if c else 0.0,
        norm=c * 10,
        top_share=None,
        learning={task: {"nll": BARE - gain * c} for task in tasks},
        benchmarks={"text": {"nll": 2 + harm * c**2}} | {task: {"nll": 1 + 2 * harm * c**2} for task in TASKS},
    )
