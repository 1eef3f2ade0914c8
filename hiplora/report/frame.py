"""One long frame of every number behind a table, from the runs that it wants and the records that are there."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from hiplora.evaluation.lm_tasks import Counted
from hiplora.pipelines.base import Config
from hiplora.report.experiment import Experiment, Run
from hiplora.report.matched import matched, point_row
from hiplora.report.measures import DIRTY, RESTORED, STALE, STILL, Measured, joined, measures
from hiplora.report.scores import counted_by
from hiplora.stages.base import Stage
from hiplora.stages.record import Record
from hiplora.stages.results import Adapter, Result, Scores
from hiplora.stages.store import Status, Store
from hiplora.tasks.origins import TEXTS

MARKS = {Status.GOOD: "", Status.RESTORED: RESTORED, Status.STALE: STALE}
STAGE = ("slot", "group", "pipeline", "role", "members", "size", "id", "name", "marks")
NUMBER = ("trained", "benchmark", "metric", "value")
CURVES = ("frontier", "curve")  # pipelines whose frontiers are their own; merges only use those of others
ADAPTER = ("slot", "group", "task", "seed", "members", "runs", "marks")


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A stage that a run asks for, and the record there is of it; ``members`` are adapters by task and training seed.

    ``role`` is train, backbone, adapter or merged; ``frontier`` for the cheap scores along an adapter's scale and
    training. ``dirty`` says that uncommitted code made it or what it stands on, ``still`` that the principal channel of
    an adapter behind it hardly moved.
    """

    role: str
    members: tuple[tuple[str, int], ...] = ()
    record: Record | None = None
    status: Status = Status.GOOD
    dirty: bool = False
    still: bool = False
    stage: Stage | None = None

    @property
    def marks(self) -> str:
        """What a reader must know of its numbers: † of a restored adapter, ‡ stale, * uncommitted changes, § still."""
        return MARKS[self.status] + DIRTY * self.dirty + STILL * self.still


@dataclass(frozen=True, kw_only=True)
class Slot:
    """A wanted run with what it asks for, not ``whole`` before results are there; or why it cannot be composed."""

    run: Run
    entries: tuple[Entry, ...] = ()
    config: Config | None = None
    problem: str | None = None
    whole: bool = True

    @property
    def stale(self) -> bool:
        """Whether a result that one of its records was made from has been replaced since."""
        return any(entry.status is Status.STALE for entry in self.entries)

    @property
    def missing(self) -> bool:
        """Whether a run would make something: a record is missing or stale."""
        there = self.whole and self.entries and all(entry.record is not None for entry in self.entries)
        return self.problem is None and (not there or self.stale)


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What a table and a plan are made from: every wanted run, and what a reader must know about them.

    ``where`` names device and arithmetic of the records, ``changed`` the settings that are not the table's own.
    ``levels`` are the NLL of each task at which learning counts as equal, from selection; ``texts`` the general texts
    that the data has.
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
        """Numbers of the slots of one group at the given places of its axes."""
        runs = ((number, slot.run) for number, slot in enumerate(self.slots) if slot.run.group == group)
        return [number for number, run in runs if point.items() <= run.point.items()]

    @cached_property
    def recorded(self) -> list[tuple[Entry, Record]]:
        """Every record with an entry that it answers for."""
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
        """The levels but for those that the bare backbone is at already: nothing has to be learned for them."""
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
            measures(self.frame, counts=_counts(self.slots)), matched(self.frontiers, self.usable)
        ):
            found.setdefault(each.measure, {}).setdefault(each.slot, []).append(each)
        return found

    def measure(self, name: str, slots: Sequence[int]) -> list[Measured]:
        """One measure of everything in some slots, in their order; nan where it was not measured."""
        found = self._measures.get(name, {})
        return [each for slot in slots for each in found.get(slot, [])]


def _counts(slots: Sequence[Slot]) -> dict[int, Sequence[Counted]]:
    """What Retain counts in the runs that say so. UserError for what was not scored, or is better when lower."""
    found: dict[int, Sequence[Counted]] = {}
    for number, slot in enumerate(slots):
        if slot.config is not None and slot.config.retain:
            scored = [entry.record.result for entry in slot.entries if entry.record is not None]
            each = [counted_by(result, slot.config.retain) for result in scored if isinstance(result, Scores)]
            found |= {number: each[0]} if each else {}
    return found


def long_frame(slots: Sequence[Slot]) -> pd.DataFrame:
    """One row per slot, stage, benchmark and metric of the records that are there, in the order of the slots.

    ``seed`` is the training seed of a single run, the sampling seed of a merge; ``trained`` is the training seed of the
    adapter of a row's benchmark, where one is there.
    """
    axes = dict.fromkeys(axis for slot in slots for axis in slot.run.point)
    rows: list[tuple[Any, ...]] = []
    for number, slot in enumerate(slots):
        run = (number, slot.run.group, slot.run.pipeline)
        for entry in slot.entries:
            if entry.record is not None:
                seeds = dict(entry.members)
                stage = (entry.role, entry.members, len(seeds), entry.record.id, entry.record.name, entry.marks)
                shared = (*(slot.run.point.get(axis) for axis in axes), *run, *stage)
                rows += [(*shared, seeds.get(each[0]), *each) for each in _numbers(entry.record.result)]
    return pd.DataFrame(rows, columns=[*axes, *STAGE, *NUMBER]).astype({"value": float, "trained": float})


def frontier_frame(slots: Sequence[Slot]) -> pd.DataFrame:
    """One row per point of every adapter of ``CURVES``, where the backbone's frontier is there; it is first.

    ``runs`` and ``marks`` are those of the two records; the other columns are :func:`point_row`'s.
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
            both = [each for each in (base, entry) if each is not None and each.record is not None]
            (zero, *_), points = (each.record.result.points for each in both)  # type: ignore[union-attr]
            marks, runs = joined(each.marks for each in both), tuple(each.record.id for each in both if each.record)
            adapter = dict(zip(ADAPTER, (number, slot.run.group, task, seed, members, runs, marks), strict=True))
            place = {axis: slot.run.point.get(axis) for axis in axes}
            rows += [{**place, **adapter, **point_row(zero, point, trained_on=task)} for point in (zero, *points)]
    return pd.DataFrame(rows, columns=None if rows else list(ADAPTER))


def _numbers(result: Result) -> list[tuple[str, str, float | None]]:
    """Benchmark, metric and value; the figures of a training stand under ``training``."""
    if isinstance(result, Scores):
        return [(name, metric, value) for name, scores in result.every.items() for metric, value in scores.items()]
    if not isinstance(result, Adapter):
        return []  # a frontier has a frame of its own
    figures = {**dict(result), **result.measures}
    return [("training", name, value) for name, value in figures.items() if isinstance(value, int | float)]
