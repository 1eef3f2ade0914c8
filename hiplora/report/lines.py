"""Runs of pipeline ``continual``: measures of a sequence of trainings, from the scores after each stage."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import cast

from hiplora.evaluation.continual import figures
from hiplora.report.aggregate import Sample
from hiplora.report.experiment import SEED
from hiplora.report.frame import Entry, Evidence, Slot
from hiplora.report.measures import Measured, joined
from hiplora.stages.results import Metrics, Scores
from hiplora.tasks import ORDER, TASKS, primary

PIPELINE = "continual"


def order(slot: Slot) -> tuple[str, ...]:
    """The tasks of a run in the order of training; empty if it cannot be composed."""
    return tuple(entry.members[0][0] for entry in slot.entries if entry.role == "adapter")


def lines(evidence: Evidence, **point: str) -> list[int]:
    """The numbers of the pipeline's runs with the given keys on their axes, in any group."""
    runs = ((number, slot.run) for number, slot in enumerate(evidence.slots))
    return [number for number, run in runs if run.pipeline == PIPELINE and point.items() <= run.point.items()]


def tasks(evidence: Evidence) -> list[str]:
    """Every task of the runs, in order; the four benchmarks if no run composes."""
    return [*dict.fromkeys(task for number in lines(evidence) for task in order(evidence.slots[number]))] or [*ORDER]


def methods(evidence: Evidence) -> list[str]:
    """The keys of the methods, in order."""
    return [*dict.fromkeys(evidence.slots[number].run.point["method"] for number in lines(evidence))]


def per_line(evidence: Evidence, measure: str, **point: str) -> Sample:
    """One value per training seed of one of :func:`measures`; a run without a value is left out, which n shows."""
    found, numbers = {}, lines(evidence, **point)
    for number in numbers:
        slot = evidence.slots[number]
        of = {each.measure: each for each in measures(slot, number)}.get(measure)
        if of is not None and not math.isnan(of.value):
            found[slot.run.point[SEED]] = of
    return Sample(found, len(numbers))


def measures(slot: Slot, number: int) -> Iterator[Measured]:
    """The measures of the run with this number.

    ``{t}/{benchmark}`` (percent) and ``{t}/{benchmark}/nll`` (nats per token) after stage t, where 0 is the backbone;
    and, if no stage is missing, those of :func:`hiplora.evaluation.continual.figures`.
    """
    line = [entry for entry in slot.entries if entry.role in ("backbone", "adapter")]
    for stage, entry in enumerate(line):
        for name, value in _scores(entry).items():
            yield Measured(number, entry.members, f"{stage}/{name}", value, _ids([entry]), entry.marks)
    if line and all(entry.record is not None for entry in line):
        for name, value in figures([_benchmarks(entry) for entry in line], order(slot)).items():
            marks = joined(entry.marks for entry in line)
            yield Measured(number, line[-1].members, name, value, _ids(line), marks)


def _benchmarks(entry: Entry) -> dict[str, Metrics]:
    """Metrics by benchmark; empty if the record is missing."""
    return {} if entry.record is None else cast(Scores, entry.record.result).benchmarks


def _scores(entry: Entry) -> dict[str, float]:
    """The NLL of every benchmark and text, and the benchmarks' headline scores in percent; nan where not measured."""
    found: dict[str, float | None] = {}
    for name, metrics in _benchmarks(entry).items():
        score = metrics[primary(name)] if name in TASKS else None
        found |= {name: None if score is None else 100 * score, f"{name}/nll": metrics["nll"]}
    return {name: math.nan if value is None else value for name, value in found.items()}


def _ids(line: Sequence[Entry]) -> tuple[str, ...]:
    return tuple(entry.record.id for entry in line if entry.record is not None)
