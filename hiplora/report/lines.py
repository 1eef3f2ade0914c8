"""Runs of pipeline ``continual``: measures of a sequence of trainings, from the scores after each stage."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import cast

from hiplora.evaluation.continual import figures
from hiplora.report.slots import Entry, Measured, Slot, measured, or_nan
from hiplora.stages.results import Metrics, Scores
from hiplora.tasks import ORDER, TASKS, primary

PIPELINE = "continual"


def order(slot: Slot) -> tuple[str, ...]:
    """The tasks of a run in the order of training; empty if it cannot be composed."""
    return tuple(entry.members[0][0] for entry in slot.entries if entry.role == "adapter")


def tasks(slots: Sequence[Slot]) -> list[str]:
    """Every task of the runs, in order; the four benchmarks if no run composes."""
    return [*dict.fromkeys(task for slot in slots for task in order(slot))] or [*ORDER]


def measures(slots: Sequence[Slot]) -> Iterator[Measured]:
    """The measures of every run of the pipeline.

    ``{t}/{benchmark}`` (percent) and ``{t}/{benchmark}/nll`` (nats per token) after stage t, where 0 is the backbone;
    and, if no stage is missing, those of :func:`hiplora.evaluation.continual.figures`.
    """
    for number, slot in enumerate(slots):
        line = [entry for entry in slot.entries if entry.role in ("backbone", "adapter")]
        if slot.run.pipeline != PIPELINE or not line:
            continue
        for stage, entry in enumerate(line):
            for name, value in _scores(entry).items():
                yield measured(number, f"{stage}/{name}", value, [entry])
        if all(entry.record is not None for entry in line):
            for name, value in figures([_benchmarks(entry) for entry in line], order(slot)).items():
                yield measured(number, name, value, line)


def _benchmarks(entry: Entry) -> dict[str, Metrics]:
    """Metrics by benchmark; empty if the record is missing."""
    return {} if entry.result is None else cast(Scores, entry.result).benchmarks


def _scores(entry: Entry) -> dict[str, float]:
    """The NLL of every benchmark and text, and the benchmarks' headline scores in percent; nan where not measured."""
    found: dict[str, float] = {}
    for name, metrics in _benchmarks(entry).items():
        score = metrics[primary(name)] if name in TASKS else None
        found |= {name: 100 * or_nan(score), f"{name}/nll": or_nan(metrics["nll"])}
    return found
