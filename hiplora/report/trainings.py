"""The trainings of one method by seed, and values per seed with the records behind them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from hiplora.report.aggregate import Sample
from hiplora.report.experiment import SEED
from hiplora.report.frame import Entry, Evidence
from hiplora.report.measures import Measured, joined
from hiplora.stages.results import Adapter

Trainings = dict[str, list[tuple[Entry, Adapter]]]  # by seed


def trainings(evidence: Evidence, group: str, method: str, *, number: int) -> Trainings:
    """The trainings of one method by seed, for each seed that has all its ``number`` adapters."""
    found: Trainings = {}
    for slot in (evidence.slots[place] for place in evidence.select(group, method=method)):
        for entry in slot.entries:
            if entry.record is not None and isinstance(entry.record.result, Adapter):
                found.setdefault(slot.run.point[SEED], []).append((entry, entry.record.result))
    return {seed: each for seed, each in found.items() if len(each) == number}


def sample(behind: Trainings, values: Mapping[str, float], expected: int) -> Sample:
    """The sample of values by seed, with the records of ``behind``."""
    return Sample({seed: _measured(behind[seed], value) for seed, value in values.items()}, expected)


def _measured(behind: Sequence[tuple[Entry, Adapter]], value: float) -> Measured:
    runs = tuple(entry.record.id for entry, _ in behind if entry.record is not None)
    return Measured(0, (), "training", value, runs, joined(entry.marks for entry, _ in behind))
