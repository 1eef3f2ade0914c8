"""Wanted runs with their stages and records, and numbers with the records behind them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from hiplora.pipelines.base import Config
from hiplora.report.experiment import Run
from hiplora.report.marks import STALE, joined
from hiplora.stages.base import Stage
from hiplora.stages.record import Record
from hiplora.stages.results import Result


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A stage that a run asks for, with its record if it has one; ``members`` are adapters by task and training seed.

    ``role`` is backbone, adapter or merged for scores, otherwise the stage's kind (train, frontier, edit, …). ``marks``
    are those of its record.
    """

    role: str
    members: tuple[tuple[str, int], ...] = ()
    record: Record | None = None
    marks: str = ""
    stage: Stage | None = None

    @property
    def result(self) -> Result | None:
        """The result on record."""
        return None if self.record is None else self.record.result

    @property
    def runs(self) -> tuple[str, ...]:
        """The id of its record, if it has one."""
        return () if self.record is None else (self.record.id,)


@dataclass(frozen=True, kw_only=True)
class Slot:
    """A wanted run with its entries, or the ``problem`` for which it cannot run.

    It is ``whole`` once all its stages are known, some of which may depend on results.
    """

    run: Run
    entries: tuple[Entry, ...] = ()
    config: Config | None = None
    problem: str | None = None
    whole: bool = True

    @property
    def task(self) -> str | None:
        """The task of a run of one adapter, by its stages; without one its key on the axis, which can be any word."""
        trained = [entry.members[0][0] for entry in self.entries if len(entry.members) == 1]
        return trained[0] if trained else self.run.point.get("task")

    @property
    def recorded(self) -> bool:
        """Whether it has all its records."""
        return self.whole and bool(self.entries) and all(entry.record is not None for entry in self.entries)

    @property
    def stale(self) -> bool:
        """Whether it has all its records, one of them made from a result that has been replaced since."""
        return self.recorded and any(STALE in entry.marks for entry in self.entries)

    @property
    def missing(self) -> bool:
        """Whether running it would make something: a record is missing or stale."""
        return self.problem is None and (not self.recorded or self.stale)

    @property
    def there(self) -> bool:
        """Whether it is complete."""
        return self.problem is None and not self.missing


@dataclass(frozen=True)
class Number:
    """A number with the ids of the records behind it and their marks."""

    value: float
    runs: tuple[str, ...] = ()
    marks: str = ""

    @classmethod
    def of(cls, value: float, entries: Iterable[Entry]) -> Number:
        """A number from the records of these entries."""
        there = list(entries)
        return Number(value, tuple(id for entry in there for id in entry.runs), joined(entry.marks for entry in there))


@dataclass(frozen=True, kw_only=True)
class Measured(Number):
    """A ``measure`` of one adapter or merge instance of the run with the number ``slot``."""

    slot: int
    members: tuple[tuple[str, int], ...]
    measure: str


def or_nan(value: float | None) -> float:
    """The value; nan if it was not measured."""
    return math.nan if value is None else value


def measured(slot: int, measure: str, value: float, entries: Sequence[Entry]) -> Measured:
    """A measure of a run, from the records of these entries; its members are those of the last one."""
    of = Number.of(value, entries)
    return Measured(value, of.runs, of.marks, slot=slot, members=entries[-1].members, measure=measure)
