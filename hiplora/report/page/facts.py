"""What a run's adapter learned and forgot, relative to the backbone under the same evaluation."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from hiplora.evaluation.retention import retention
from hiplora.report.matched import point_row
from hiplora.report.page.groups import Run, scored, split
from hiplora.report.runs.shelf import Shelf
from hiplora.stages.record import Record
from hiplora.stages.results import Frontier, Metrics, Scores
from hiplora.tasks import ORDER, TASKS, primary

FRONTIER = "frontier"


@dataclass(frozen=True)
class Facts:
    """The numbers of one adapter, None if not measured; ``on`` names the evaluation: test, validation or frontier.

    ``own`` is the headline score in percent, ``learned`` the fall of the own NLL in nats per token, the others are
    defined by :func:`hiplora.evaluation.retention.retention`. A frontier measures learning on validation and has no
    ``own``.
    """

    on: str
    of: Record
    own: float | None = None
    learned: float | None = None
    retain_pp: float | None = None
    retain_nll: float | None = None
    retain_text: float | None = None


def facts(run: Run, bases: Mapping[str, Record | None]) -> Facts | None:
    """The facts from a run's best record, None if it is not an adapter; ``bases``: backbone records by :func:`key`."""
    record, task = run.best, run.task
    if record is None or task is None:
        return None
    base = bases.get(key(record))
    if isinstance(record.result, Frontier):
        return _of_frontier(record, base, task)
    assert isinstance(record.result, Scores)
    after = record.result.benchmarks
    before = base.result.benchmarks if base is not None and isinstance(base.result, Scores) else {}
    own = after.get(task, {}).get(primary(task)) if task in TASKS else None
    numbers = {"own": None if own is None else 100 * own, "learned": _fall(before, after, task)}
    if {*ORDER, "text"} <= before.keys() & after.keys():
        kept = retention(before, after, trained_on=task)
        numbers |= {name: kept[name] for name in ("retain_pp", "retain_nll", "retain_text")}
    elif (fall := _fall(before, after, "text")) is not None:
        numbers["retain_text"] = -fall
    return Facts(split(record), record, **numbers)


def _of_frontier(record: Record, base: Record | None, task: str) -> Facts | None:
    """The facts of the finished adapter at c = 1."""
    assert isinstance(record.result, Frontier)
    point = next((each for each in record.result.points if each.scale == each.fraction == 1), None)
    if point is None or base is None or not isinstance(base.result, Frontier):
        return Facts(FRONTIER, record)
    row = point_row(base.result.points[0], point, trained_on=task)
    known = {name: None if math.isnan(value) else value for name, value in row.items()}
    return Facts(FRONTIER, record, learned=known["gain"], retain_nll=known["nll"], retain_text=known["text"])


def _fall(before: Mapping[str, Metrics], after: Mapping[str, Metrics], name: str) -> float | None:
    one, two = (scores.get(name, {}).get("nll") for scores in (before, after))
    return None if one is None or two is None else one - two


def key(record: Record) -> str:
    """A key that is equal for comparable scores: kind, device and arithmetic, evaluation and its numbers of items.

    The benchmarks asked and the number of scales are not part of it.
    """
    sizes = [record.asked.get(name) for name in ("own_items", "other_items")]
    return repr((record.kind, record.where, record.asked.get("evaluation"), sizes))


def backbones(records: Iterable[Record]) -> dict[str, Record | None]:
    """The backbone's records by :func:`key`; among several, the one with the most benchmarks."""
    found: dict[str, Record | None] = {}
    for record in records:
        of = record.asked.get("of", {}).get("kind")
        if of != "backbone" or not isinstance(record.result, Scores | Frontier):
            continue
        there = found.get(key(record))
        if there is None or _breadth(record) > _breadth(there):
            found[key(record)] = record
    return found


def _breadth(record: Record) -> int:
    return len(record.result.benchmarks) if isinstance(record.result, Scores) else 0


def members(shelf: Shelf, record: Record) -> list[Record]:
    """The scores of a merge's adapters alone, under the same evaluation; empty for other records."""
    if scored(record) != "merged":
        return []
    alone = [each for each in shelf.records if scored(each) == "adapter" and key(each) == key(record)]
    return [each for each in alone if set(each.needs) <= set(record.needs)]
