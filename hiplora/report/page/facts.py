"""What a run's adapter learned and forgot, relative to the backbone under the same evaluation."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from hiplora.evaluation.lm_tasks import Counted
from hiplora.evaluation.retention import retention
from hiplora.report.matched import point_row
from hiplora.report.page.bare import ADAPTER, Bare, comparable_on, plotted_with
from hiplora.report.page.groups import Run, scored
from hiplora.report.page.retained import retained
from hiplora.report.runs.fields import split
from hiplora.report.runs.shelf import Shelf
from hiplora.stages.record import Record
from hiplora.stages.results import Frontier, Metrics, Scores
from hiplora.tasks import ORDER, TASKS, primary

FRONTIER = "frontier"
ALONE = ("adapter", "scaled")  # kinds of a score of one adapter trained here
ELSEWHERE = ("folder", "merged_folders")  # adapters trained elsewhere; no record says on what


@dataclass(frozen=True)
class Facts:
    """The numbers of one adapter, None if not measured; ``on`` names the evaluation: test, validation or frontier.

    ``own`` is the headline score of ``task``, the last one trained on, in percent, ``own_before`` the backbone's, and
    ``learned`` the fall of its NLL in nats per token. The others are defined by
    :func:`hiplora.evaluation.retention.retention` and leave out every benchmark trained on; for an adapter trained
    elsewhere they leave out none. A frontier measures learning on validation and has no ``own``. Facts with the same
    ``plot`` are comparable.
    """

    on: str
    task: str | None = None
    plot: str = ""
    own: float | None = None
    own_before: float | None = None
    learned: float | None = None
    retain_pp: float | None = None
    retain_nll: float | None = None
    retain_text: float | None = None


def facts(run: Run, bare: Bare, counts: Sequence[Counted] = ()) -> Facts | None:
    """The facts from a run's best record; None if it holds no adapter, or a merge of adapters trained here.

    ``counts`` is what Retain counts; the four benchmarks if it is empty.
    """
    record = run.best
    if record is None or (run.task is None and run.kind not in ELSEWHERE):
        return None
    task = run.task or own_benchmark(record)
    base = bare.of(record)
    shared: dict[str, Any] = {"task": task, "plot": plotted_with(record, task or "")}
    if isinstance(record.result, Frontier) and task is not None:
        return replace(_of_frontier(record, base, task), **shared)
    assert isinstance(record.result, Scores)
    after = record.result.benchmarks
    before = base.result.benchmarks if base is not None and isinstance(base.result, Scores) else {}
    own, first = (
        scores.get(task, {}).get(primary(task)) if task is not None and task in TASKS else None
        for scores in (after, before)
    )
    learned = None if task is None else _fall(before, after, task)
    numbers: dict[str, Any] = {"own": None if own is None else 100 * own, "learned": learned}
    numbers["own_before"] = None if first is None else 100 * first
    if {*ORDER, "text"} <= before.keys() & after.keys():
        kept = retention(before, after, trained_on=run.tasks)
        numbers |= {name: kept[name] for name in ("retain_pp", "retain_nll", "retain_text")}
    elif (fall := _fall(before, after, "text")) is not None:
        numbers["retain_text"] = -fall
    if counts:
        numbers["retain_pp"] = retained(run, bare, counts)
    return Facts(split(record), **shared, **numbers)


def own_benchmark(record: Record) -> str | None:
    """The benchmark beyond the four that an adapter trained elsewhere was scored on; None if there is not one."""
    others = [each.get("name") for each in record.asked.get("benchmarks", []) if each.get("name") not in ORDER]
    return others[0] if len(others) == 1 else None


def _of_frontier(record: Record, base: Record | None, task: str) -> Facts:
    """The facts of the finished adapter at c = 1."""
    assert isinstance(record.result, Frontier)
    point = next((each for each in record.result.points if each.scale == each.fraction == 1), None)
    if point is None or base is None or not isinstance(base.result, Frontier):
        return Facts(FRONTIER)
    row = point_row(base.result.points[0], point, trained_on=task)
    known = {name: None if math.isnan(value) else value for name, value in row.items()}
    return Facts(FRONTIER, learned=known["gain"], retain_nll=known["nll"], retain_text=known["text"])


def _fall(before: Mapping[str, Metrics], after: Mapping[str, Metrics], name: str) -> float | None:
    one, two = (scores.get(name, {}).get("nll") for scores in (before, after))
    return None if one is None or two is None else one - two


def members(shelf: Shelf, record: Record) -> list[Record]:
    """The scores of a merge's adapters alone on their own benchmarks, evaluated and scaled as in the merge.

    Empty for other records, and for a merge of adapters rescaled to norms, which are not scored alone.
    """
    of = record.asked.get("of", {})
    if scored(record) != "merged" or of.get("norms"):
        return []
    adapters = of.get("adapters", [])
    wanted = list(zip(adapters, of.get("scales") or [1.0] * len(adapters), strict=True))
    near = [each for each in shelf.records if scored(each) in ALONE and set(each.needs) <= set(record.needs)]
    found = [each for each in near if (trained(each), _scale(each)) in wanted]
    return [each for each in found if comparable_on(trained_on(each), each, record)]


def made_from(shelf: Shelf, record: Record) -> list[Record]:
    """The records that a record was made from; for merged adapter folders the scores of each folder alone."""
    needs = [need for id in record.needs if (need := shelf.need(record, id)) is not None]
    if scored(record) != "merged_folders":
        return needs
    reads = record.asked["reads"]
    folders = [each for each in shelf.records if scored(each) == "folder" and each.where == record.where]
    alone = {(of["backbone"], of[ADAPTER]): each for each in reversed(folders) if (of := each.asked["reads"])}
    members = [(reads["backbone"], file) for name, file in reads.items() if name.startswith(f"{ADAPTER} ")]
    return [*needs, *(alone[each] for each in members if each in alone)]


def trained(record: Record) -> Mapping[str, Any]:
    """The training of the adapter that a record scores, as it was asked; empty without one."""
    of = record.asked.get("of", {})
    return of.get("train", of.get("of", {}))


def trained_on(record: Record) -> str:
    """The last task that this adapter was trained on; "" without a training."""
    return str(trained(record).get("task", {}).get("name", ""))


def _scale(record: Record) -> float:
    """The factor on the update that a record scores."""
    return record.asked.get("of", {}).get("scale", 1.0)
