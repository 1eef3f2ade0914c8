"""Measures derived from the long frame: an adapter's own scores, what it forgot, what a merge breaks.

Scores are in percent, drops in points, log-likelihoods in nats per token; nan where code was not executed.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

import pandas as pd

from hiplora import stats
from hiplora.evaluation.lm_tasks import Counted
from hiplora.evaluation.retention import retention
from hiplora.report.marks import joined
from hiplora.report.slots import Measured
from hiplora.tasks import TASKS, primary, task_class

TAUS = (0.85, 0.9, 0.95)


def measures(frame: pd.DataFrame, *, counts: Mapping[int, Sequence[Counted]] | None = None) -> Iterator[Measured]:
    """Every measure of every adapter and merge instance, in the order of the frame.

    ``counts`` says, by slot, what Retain counts if not the four benchmarks.
    """
    yield from _bare(frame)
    yield from _adapters(frame, counts or {})
    yield from _at_level(frame)
    yield from _energies(frame)
    yield from _instances(frame)


def _measured(row: Any, values: Mapping[str, float | None], id: str, marks: Iterable[str]) -> Iterator[Measured]:
    for measure, value in values.items():
        number = math.nan if value is None else value
        yield Measured(number, (id,), joined(marks), slot=row.slot, members=row.members, measure=measure)


def _bare(frame: pd.DataFrame) -> Iterator[Measured]:
    """``bare/<task>``: every headline score of the bare backbone."""
    for row in frame[frame["role"] == "backbone"].dropna(subset="value").itertuples():
        if row.benchmark in TASKS and row.metric == primary(row.benchmark):
            yield from _measured(row, {f"bare/{row.benchmark}": 100 * row.value}, row.id, [row.marks])


def _adapters(frame: pd.DataFrame, counts: Mapping[int, Sequence[Counted]]) -> Iterator[Measured]:
    """``own`` score and ``own_nll`` of every single run's adapter, and what it forgot relative to the backbone."""
    single = frame[(frame["pipeline"] == "single") & frame["role"].isin(["backbone", "adapter"])]
    for slot, group in groupby(single.itertuples(), key=lambda row: row.slot):
        rows = list(group)
        scores: dict[str, dict[str, dict[str, float | None]]] = {"backbone": {}, "adapter": {}}
        for row in rows:
            scores[row.role].setdefault(row.benchmark, {})[row.metric] = None if math.isnan(row.value) else row.value
        base, adapted = scores["backbone"], scores["adapter"]
        if adapted:
            of = next(row for row in rows if row.role == "adapter")
            ((task, _),) = of.members
            own = adapted[task][primary(task)]
            values = {"own": None if own is None else 100 * own, "own_nll": adapted[task]["nll"]}
            yield from _measured(of, values, of.id, [of.marks])
            if base:
                lost = retention(base, adapted, trained_on=task, counts=counts.get(slot, ()))
                yield from _measured(of, lost, of.id, [row.marks for row in rows])


def _at_level(frame: pd.DataFrame) -> Iterator[Measured]:
    """``level/own``: the own score of every adapter that was scaled to the level of its task."""
    scaled = frame[(frame["pipeline"] == "frontier") & (frame["role"] == "adapter")]
    for row in scaled.itertuples():
        if row.benchmark == row.members[0][0] and row.metric == primary(row.benchmark):
            yield from _measured(row, {"level/own": 100 * row.value}, row.id, [row.marks])


def _energies(frame: pd.DataFrame) -> Iterator[Measured]:
    """``energy/top`` and ``energy/beyond`` of every trained update whose shares were measured, in percent.

    The share of its energy in the leading singular subspaces, and this share minus the one of a random update.
    """
    shares = frame[(frame["benchmark"] == "training") & frame["metric"].isin(["top_share", "top_share_random"])]
    for _, group in groupby(shares.itertuples(), key=lambda row: (row.slot, row.id)):
        found = {row.metric: row for row in group}
        top, random = (100 * found[name].value for name in ("top_share", "top_share_random"))
        of = found["top_share"]
        yield from _measured(of, {"energy/top": top, "energy/beyond": top - random}, of.id, [of.marks])


def _instances(frame: pd.DataFrame) -> Iterator[Measured]:
    """Scores of every merge instance before and after, their difference Δ, and the measures derived from them."""
    known = frame[frame["trained"].notna()]
    keys = ["slot", "benchmark", "trained", "metric"]
    alone = known[known["role"] == "adapter"][[*keys, "value", "id", "marks"]]
    pairs = known[known["role"] == "merged"].merge(alone, on=keys, how="left", suffixes=("", "_before"))
    base = frame[(frame["role"] == "backbone") & (frame["metric"] == "nll")].drop_duplicates("benchmark")
    bases = {row.benchmark: row for row in base.itertuples()}
    for _, group in groupby(pairs.itertuples(), key=lambda row: (row.slot, row.id)):
        rows: list[Any] = list(group)
        if any(pd.isna(row.id_before) for row in rows):  # a member's score alone is missing
            continue
        yield from _kept(rows, bases)
        scored = [row for row in rows if row.metric in task_class(row.benchmark).scores]
        for row in scored:
            at, marks = f"{row.benchmark}/{row.metric}", [row.marks_before, row.marks]
            yield from _measured(row, {f"before/{at}": 100 * row.value_before}, row.id_before, marks[:1])
            yield from _measured(row, {f"after/{at}": 100 * row.value}, row.id, marks[1:])
            yield from _measured(row, {f"Δ/{at}": 100 * (row.value - row.value_before)}, row.id, marks)
        marks = [mark for row in rows for mark in (row.marks_before, row.marks)]
        yield from _measured(rows[0], _damage(rows, scored), rows[0].id, marks)


def _kept(rows: Sequence[Any], bases: Mapping[str, Any]) -> Iterator[Measured]:
    """``kept``: the mean, over the tasks, of the share of the gain in NLL that a merge keeps, each clipped to ±1.

    ``kept_least`` is the smallest share, ``kept/<task>`` each one, ``kept_of`` the mean gain of the adapters alone.
    ``kept`` and ``kept_least`` are nan if some adapter has no gain that could be kept.
    """
    found = [row for row in rows if row.metric == "nll"]
    if not found or any(row.benchmark not in bases for row in found):
        return
    before = {row.benchmark: bases[row.benchmark].value for row in found}
    gains = {row.benchmark: before[row.benchmark] - row.value_before for row in found}
    asked = {
        row.benchmark: stats.kept_share(base=before[row.benchmark], own=row.value_before, merged=row.value)
        for row in found
    }
    shares = {task: share for task, share in asked.items() if share is not None}
    whole = len(shares) == len(found)
    values = {f"kept/{task}": share for task, share in shares.items()} | {"kept_of": sum(gains.values()) / len(gains)}
    values["kept"] = sum(shares.values()) / len(shares) if whole else math.nan
    values["kept_least"] = min(shares.values()) if whole else math.nan
    marks = [mark for row in found for mark in (row.marks_before, row.marks, bases[row.benchmark].marks)]
    yield from _measured(rows[0], values, rows[0].id, marks)


def _damage(rows: Sequence[Any], scored: Sequence[Any]) -> dict[str, float | None]:
    """``drop`` (mean absolute Δ), ``nll_rise``, ``fail@τ`` (100 or 0), ``excluded`` (number of tasks not judged).

    ``chance@τ`` is the probability, in percent, that the merge fails though nothing is lost.
    """
    rises = [row.value - row.value_before for row in rows if row.metric == "nll"]
    drop = sum(abs(100 * (row.value - row.value_before)) for row in scored) / len(scored)
    found: dict[str, float | None] = {"drop": drop, "nll_rise": sum(rises) / len(rises)}
    heads = [row for row in scored if row.metric == primary(row.benchmark)]
    before, after = ({row.benchmark: getattr(row, side) for row in heads} for side in ("value_before", "value"))
    known = not any(math.isnan(value) for value in (*before.values(), *after.values()))
    items = {row.benchmark: row.value for row in rows if row.metric == "n"}
    for tau in TAUS:  # without all headline scores nothing can be judged
        outcome = stats.merge_outcome(before, after, tau=tau) if known else None
        found["excluded"] = None if outcome is None else len(outcome.excluded)
        found[f"fail@{tau}"] = None if outcome is None or outcome.failed is None else 100.0 * outcome.failed
        chance = stats.no_damage_fail(before, items, tau=tau) if known else None
        found[f"chance@{tau}"] = None if chance is None else 100 * chance
    return found
