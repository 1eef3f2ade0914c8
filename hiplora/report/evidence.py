"""Everything behind a table or figure: its runs with their records, and every measure of them."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from hiplora.report import edits, lines, matched
from hiplora.report.experiment import Experiment
from hiplora.report.measures import measures
from hiplora.report.slots import Entry, Measured, Slot
from hiplora.stages.record import Record
from hiplora.stages.store import Store
from hiplora.tasks.origins import TEXTS


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What tables, figures and plans are made from: every wanted run with its records, and notes about them.

    ``notes`` belong to a table or figure; ``asides`` are about records that it does not use, and are only printed, so
    that another run leaves a complete table as it is. ``where`` names device and arithmetic of the records,
    ``changed`` the user's settings that differ from conf/. ``levels`` holds, by task, the NLL at which learning
    counts as equal, from selection; ``texts`` names the general texts of the data.
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
    asides: tuple[str, ...] = ()
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
    def frontiers(self) -> list[matched.Curves]:
        """The frontier of every adapter that has one."""
        return [*matched.frontiers(self.slots)]

    @cached_property
    def bare(self) -> dict[str, float]:
        """The own NLL on validation of the bare backbone for every task with a frontier."""
        return {each.task: float(each.points["own"][0]) for each in self.frontiers}

    @cached_property
    def usable(self) -> dict[str, float]:
        """The levels except those that the bare backbone reaches already, where nothing has to be learned."""
        return {task: level for task, level in self.levels.items() if level < self.bare.get(task, math.inf)}

    def comparable(self, group: str) -> list[str]:
        """The tasks of a group that have a usable level; all of them while there are no levels."""
        tasks = self.experiment.keys(group, "task")
        return [task for task in tasks if task in self.usable] if self.levels else tasks

    @cached_property
    def _measures(self) -> dict[str, dict[int, list[Measured]]]:
        found: dict[str, dict[int, list[Measured]]] = {}
        for each in itertools.chain(
            measures(self.slots),
            matched.measures(self.frontiers, self.usable),
            lines.measures(self.slots),
            edits.measures(self.slots),
        ):
            found.setdefault(each.measure, {}).setdefault(each.slot, []).append(each)
        return found

    def measure(self, name: str, slots: Sequence[int]) -> list[Measured]:
        """All values of one measure in the given slots, in their order; nan where it was not measured."""
        found = self._measures.get(name, {})
        return [each for slot in slots for each in found.get(slot, [])]
