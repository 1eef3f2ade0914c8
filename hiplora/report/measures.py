"""Measures of runs, straight from their records: an adapter's own scores, what it forgot, what a merge breaks.

Scores are in percent, drops in points, log-likelihoods in nats per token; nan where code was not executed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import cast

from hiplora import stats
from hiplora.evaluation.retention import retention
from hiplora.report.marks import joined
from hiplora.report.scores import counted_by
from hiplora.report.slots import Entry, Measured, Number, Slot, measured, or_nan
from hiplora.stages.results import Adapter, Metrics, Scores
from hiplora.tasks import TASKS, primary, task_class

TAUS = (0.85, 0.9, 0.95)
Floats = dict[str, dict[str, float]]  # benchmark → metric → value


def measures(slots: Sequence[Slot]) -> Iterator[Measured]:
    """Every measure of every adapter and merge instance, in the order of the runs."""
    bases = _bases(slots)
    for number, slot in enumerate(slots):
        for entry in slot.entries:
            yield from _of_entry(number, slot, entry)
        if slot.run.pipeline == "single":
            yield from _adapter(number, slot)
        yield from _instances(number, slot, bases)


def scores(entry: Entry) -> Mapping[str, Metrics]:
    """The scores on record, benchmark → metric → value; empty for other results."""
    return entry.result.every if isinstance(entry.result, Scores) else {}


def _bases(slots: Sequence[Slot]) -> dict[str, Number]:
    """The NLL of the bare backbone on every benchmark."""
    found: dict[str, Number] = {}
    for entry in (entry for slot in slots for entry in slot.entries if entry.role == "backbone"):
        for name, metrics in scores(entry).items():
            if "nll" in metrics:
                found.setdefault(name, Number.of(or_nan(metrics["nll"]), [entry]))
    return found


def _of_entry(number: int, slot: Slot, entry: Entry) -> Iterator[Measured]:
    """The measures that one record gives alone.

    ``bare/<task>``: a headline score of the bare backbone. ``level/own``: the own score of an adapter that was scaled
    to the level of its task. ``energy/top`` and ``energy/beyond``: the share of an update's energy in the leading
    singular subspaces, and this share minus the one of a random update.
    """
    for name, metrics in scores(entry).items():
        value = metrics.get(primary(name)) if name in TASKS else None
        if value is not None and entry.role == "backbone":
            yield measured(number, f"bare/{name}", 100 * value, [entry])
        if slot.run.pipeline == "frontier" and entry.role == "adapter" and name == entry.members[0][0]:
            yield measured(number, "level/own", 100 * or_nan(value), [entry])
    shares = entry.result.measures if isinstance(entry.result, Adapter) else {}
    if "top_share" in shares and "top_share_random" in shares:
        top, random = 100 * shares["top_share"], 100 * shares["top_share_random"]
        yield measured(number, "energy/top", top, [entry])
        yield measured(number, "energy/beyond", top - random, [entry])


def _adapter(number: int, slot: Slot) -> Iterator[Measured]:
    """``own`` score and ``own_nll`` of a single run's adapter, and what it forgot relative to the backbone."""
    entries = {entry.role: entry for entry in slot.entries if entry.record is not None}
    if (of := entries.get("adapter")) is None:
        return
    adapted = scores(of)
    ((task, _),) = of.members
    yield measured(number, "own", 100 * or_nan(adapted[task][primary(task)]), [of])
    yield measured(number, "own_nll", or_nan(adapted[task]["nll"]), [of])
    if (base := entries.get("backbone")) is not None:
        retain = slot.config.retain if slot.config is not None else ()
        counts = counted_by(cast(Scores, of.result), retain) if retain else ()
        for name, value in retention(scores(base), adapted, trained_on=task, counts=counts).items():
            yield measured(number, name, or_nan(value), [base, of])


def _instances(number: int, slot: Slot, bases: Mapping[str, Number]) -> Iterator[Measured]:
    """The measures of every merge instance; none if a member's score alone is missing."""
    alone = {entry.members: entry for entry in slot.entries if entry.role == "adapter" and entry.record is not None}
    for merged in (entry for entry in slot.entries if entry.role == "merged" and entry.record is not None):
        single = {member[0]: alone[member,] for member in merged.members if (member,) in alone}
        before = {task: _floats(scores(entry).get(task, {})) for task, entry in single.items()}
        after = {task: _floats(metrics) for task, metrics in scores(merged).items() if task in dict(merged.members)}
        if not after or not all(after[task].keys() <= before.get(task, {}).keys() for task in after):
            continue
        for name, of in _instance(merged, single, before, after, bases):
            yield Measured(of.value, of.runs, of.marks, slot=number, members=merged.members, measure=name)


def _instance(
    merged: Entry, single: Mapping[str, Entry], before: Floats, after: Floats, bases: Mapping[str, Number]
) -> Iterator[tuple[str, Number]]:
    """The measures of one merge: its scores before and after, their difference Δ, and those derived from them."""
    for task in after:
        for metric in _scored(after, task):
            at, was, now = f"{task}/{metric}", 100 * before[task][metric], 100 * after[task][metric]
            yield f"before/{at}", Number.of(was, [single[task]])
            yield f"after/{at}", Number.of(now, [merged])
            yield f"Δ/{at}", Number.of(now - was, [single[task], merged])
    behind = [merged, *single.values()]
    for name, value in _damage(before, after).items():
        yield name, Number.of(or_nan(value), behind)
    if all(task in bases for task in after):
        every: list[Entry | Number] = [*behind, *(bases[task] for task in after)]
        runs = tuple(dict.fromkeys(id for each in every for id in each.runs))
        for name, value in _kept(bases, before, after).items():
            yield name, Number(value, runs, joined(each.marks for each in every))


def _floats(metrics: Metrics) -> dict[str, float]:
    return {name: or_nan(value) for name, value in metrics.items()}


def _scored(scores: Floats, task: str) -> list[str]:
    """The metrics that are scores of a task, as far as they are there."""
    return [metric for metric in scores[task] if metric in task_class(task).scores]


def _kept(bases: Mapping[str, Number], before: Floats, after: Floats) -> dict[str, float]:
    """``kept``: the mean, over the tasks, of the share of the gain in NLL that a merge keeps, each clipped to ±1.

    ``kept_least`` is the smallest share, ``kept/<task>`` each one, ``kept_of`` the mean gain of the adapters alone.
    ``kept`` and ``kept_least`` are nan if some adapter has no gain that could be kept.
    """
    shares: dict[str, float] = {}
    for task in after:
        base, own, merged = bases[task].value, before[task]["nll"], after[task]["nll"]
        if (share := stats.kept_share(base=base, own=own, merged=merged)) is not None:
            shares[task] = share
    whole = len(shares) == len(after)
    gains = [bases[task].value - before[task]["nll"] for task in after]
    values = {f"kept/{task}": share for task, share in shares.items()} | {"kept_of": sum(gains) / len(gains)}
    values["kept"] = sum(shares.values()) / len(shares) if whole else math.nan
    values["kept_least"] = min(shares.values()) if whole else math.nan
    return values


def _damage(before: Floats, after: Floats) -> dict[str, float | None]:
    """``drop`` (mean absolute Δ), ``nll_rise``, ``fail@τ`` (100 or 0), ``excluded`` (number of tasks not judged).

    ``chance@τ`` is the probability, in percent, that the merge fails though nothing is lost.
    """
    rises = [after[task]["nll"] - before[task]["nll"] for task in after]
    drops = [abs(100 * (after[task][name] - before[task][name])) for task in after for name in _scored(after, task)]
    found: dict[str, float | None] = {"drop": sum(drops) / len(drops), "nll_rise": sum(rises) / len(rises)}
    old, new = ({task: scores[task][primary(task)] for task in after} for scores in (before, after))
    items = {task: metrics["n"] for task, metrics in after.items() if "n" in metrics}
    known = not any(math.isnan(value) for value in (*old.values(), *new.values()))
    for tau in TAUS:  # without all headline scores nothing can be judged
        outcome = stats.merge_outcome(old, new, tau=tau) if known else None
        found["excluded"] = None if outcome is None else len(outcome.excluded)
        found[f"fail@{tau}"] = None if outcome is None or outcome.failed is None else 100.0 * outcome.failed
        chance = stats.no_damage_fail(old, items, tau=tau) if known else None
        found[f"chance@{tau}"] = None if chance is None else 100 * chance
    return found
