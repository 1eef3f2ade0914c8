"""One long frame of every number behind a table, from the runs that it needs and the existing records."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import pandas as pd

from hiplora.evaluation.lm_tasks import Counted
from hiplora.report import edits, lines
from hiplora.report.experiment import Experiment
from hiplora.report.matched import matched, point_row
from hiplora.report.measures import measures
from hiplora.report.scores import counted_by
from hiplora.report.slots import Entry, Measured, Slot, measured
from hiplora.stages.record import Record
from hiplora.stages.results import Adapter, Frontier, Result, Scores
from hiplora.stages.store import Store
from hiplora.tasks.origins import TEXTS

STAGE = ("slot", "pipeline", "role", "members", "id", "marks")
NUMBER = ("trained", "benchmark", "metric", "value")
CURVES = ("frontier", "curve")  # pipelines with frontiers of their own; merges use those of other runs
ADAPTER = ("slot", "group", "task", "seed", "members", "runs", "marks")


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What tables, figures and plans are made from: every wanted run with its records, and notes about them.

    ``where`` names device and arithmetic of the records, ``changed`` the user's settings that differ from conf/.
    ``levels`` holds, by task, the NLL at which learning counts as equal, from selection; ``texts`` names the general
    texts of the data.
    """

    experiment: Experiment
    slots: Sequence[Slot]
    folder: Path
    backbone: str
    data: str
    scale: str
    where: str
    changed: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    commands: tuple[str, ...] = ()
    store: Store | None = None
    levels: Mapping[str, float] = field(default_factory=dict)
    texts: Sequence[str] = TEXTS

    def select(self, group: str, **point: str) -> list[int]:
        """The numbers of the slots of one group with the given keys on their axes."""
        runs = ((number, slot.run) for number, slot in enumerate(self.slots) if slot.run.group == group)
        return [number for number, run in runs if point.items() <= run.point.items()]

    @cached_property
    def recorded(self) -> list[tuple[Entry, Record]]:
        """Every record once, with an entry that it belongs to."""
        found = ((entry, entry.record) for slot in self.slots for entry in slot.entries if entry.record is not None)
        return list({record.id: (entry, record) for entry, record in found}.values())

    @cached_property
    def frame(self) -> pd.DataFrame:
        """One row per slot, stage, benchmark and metric."""
        return long_frame(self.slots)

    @cached_property
    def frontiers(self) -> pd.DataFrame:
        """One row per adapter and point of its frontier, the backbone first."""
        return frontier_frame(self.slots)

    @cached_property
    def usable(self) -> dict[str, float]:
        """The levels except those that the bare backbone reaches already, where nothing has to be learned."""
        frame = self.frontiers
        bare = {} if frame.empty else frame[frame["scale"] == 0].groupby("task")["own"].first().to_dict()
        return {task: level for task, level in self.levels.items() if task not in bare or level < bare[task]}

    def comparable(self, group: str) -> list[str]:
        """The tasks of a group that have a usable level; all of them while there are no levels."""
        tasks = self.experiment.keys(group, "task")
        return [task for task in tasks if task in self.usable] if self.levels else tasks

    @cached_property
    def _measures(self) -> dict[str, dict[int, list[Measured]]]:
        found: dict[str, dict[int, list[Measured]]] = {}
        for each in itertools.chain(
            measures(self.frame, counts=_counts(self.slots)),
            matched(self.frontiers, self.usable),
            lines.measures(self.slots),
            edits.measures(self.slots),
        ):
            found.setdefault(each.measure, {}).setdefault(each.slot, []).append(each)
        return found

    def measure(self, name: str, slots: Sequence[int]) -> list[Measured]:
        """All values of one measure in the given slots, in their order; nan where it was not measured."""
        found = self._measures.get(name, {})
        return [each for slot in slots for each in found.get(slot, [])]


def _counts(slots: Sequence[Slot]) -> dict[int, Sequence[Counted]]:
    """What Retain counts, by slot, in runs that set evaluation.retain.

    Raises:
        UserError: it names a metric that was not scored, or one that is better when lower.
    """
    found: dict[int, Sequence[Counted]] = {}
    for number, slot in enumerate(slots):
        if slot.config is not None and slot.config.retain:
            scored = [entry.result for entry in slot.entries if isinstance(entry.result, Scores)]
            each = [counted_by(result, slot.config.retain) for result in scored]
            found |= {number: each[0]} if each else {}
    return found


def long_frame(slots: Sequence[Slot]) -> pd.DataFrame:
    """One row per slot, stage, benchmark and metric of the existing records, in the order of the slots.

    ``seed`` is the training seed of a single run, the sampling seed of a merge; ``trained`` is the training seed of the
    adapter for a row's benchmark, if there is one.
    """
    axes = dict.fromkeys(axis for slot in slots for axis in slot.run.point)
    rows: list[tuple[Any, ...]] = []
    for number, slot in enumerate(slots):
        for entry in slot.entries:
            if entry.record is not None:
                seeds = dict(entry.members)
                stage = (number, slot.run.pipeline, entry.role, entry.members, entry.record.id, entry.marks)
                shared = (*(slot.run.point.get(axis) for axis in axes), *stage)
                rows += [(*shared, seeds.get(each[0]), *each) for each in _numbers(entry.record.result)]
    return pd.DataFrame(rows, columns=[*axes, *STAGE, *NUMBER]).astype({"value": float, "trained": float})


def frontier_frame(slots: Sequence[Slot]) -> pd.DataFrame:
    """One row per point of every adapter's frontier in ``CURVES``, if the backbone's exists, whose point comes first.

    ``runs`` and ``marks`` are those of both records; the other columns are those of :func:`point_row`.
    """
    axes = dict.fromkeys(axis for slot in slots for axis in slot.run.point)
    rows: list[dict[str, Any]] = []
    for number, slot in enumerate(slots):
        if slot.run.pipeline not in CURVES:
            continue
        found = {entry.members: entry for entry in slot.entries if entry.role == "frontier" and entry.record}
        base = found.pop((), None)
        for members, entry in found.items() if base is not None else ():
            ((task, seed),) = members
            (zero, *_), points = (cast(Frontier, each.result).points for each in (base, entry))
            of = measured(number, "frontier", math.nan, [base, entry])
            adapter = dict(zip(ADAPTER, (number, slot.run.group, task, seed, members, of.runs, of.marks), strict=True))
            place = {axis: slot.run.point.get(axis) for axis in axes}
            rows += [{**place, **adapter, **point_row(zero, point, trained_on=task)} for point in (zero, *points)]
    return pd.DataFrame(rows, columns=None if rows else list(ADAPTER))


def _numbers(result: Result) -> list[tuple[str, str, float | None]]:
    """Benchmark, metric and value of every number; those of a training have the benchmark ``training``."""
    if isinstance(result, Scores):
        return [(name, metric, value) for name, scores in result.every.items() for metric, value in scores.items()]
    if not isinstance(result, Adapter):
        return []  # frontiers are in another frame
    figures = {**dict(result), **result.measures}
    return [("training", name, value) for name, value in figures.items() if isinstance(value, int | float)]
