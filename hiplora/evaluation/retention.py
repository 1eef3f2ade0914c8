"""Retain: how much an adapter lost on the benchmarks it was not trained on, and on general text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hiplora.evaluation.lm_tasks import Counted, metric_of
from hiplora.tasks import ORDER, primary, task_class

Benchmarks = str | Sequence[str] | None


def left_out(trained_on: Benchmarks) -> tuple[str, ...]:
    """The benchmarks that Retain leaves out, from one name, several or None."""
    return (trained_on,) if isinstance(trained_on, str) else tuple(trained_on or ())


def retention(
    base: Mapping[str, Any], adapted: Mapping[str, Any], *, trained_on: Benchmarks, counts: Sequence[Counted] = ()
) -> dict[str, float | None]:
    """Retain, Retain-NLL and Retain-text of one adapter; lower is better, negative means improved.

    Args:
        base, adapted: metrics by benchmark; accuracies as fractions, ``nll`` in nats per token.
        trained_on: the benchmark to leave out of the means, or several; None leaves out none.
        counts: what Retain counts instead of the four; Retain-NLL is always over the four.

    Returns:
        ``retain_pp``: mean over the other benchmarks of 100 (score_base - score_adapted), in percentage points; None
        if one of them has no score (code that was not executed, or a metric that is not a fraction of 1).
        ``retain_nll`` and ``retain_styled``: ``nll`` and ``styled`` of :func:`forgotten`. ``retain_text``: rise of the
        cross-entropy on general text, in nats per token.
    """
    others = [task for task in ORDER if task not in left_out(trained_on)]
    counted = [each for each in counts or map(Counted.benchmark, ORDER) if each.key not in left_out(trained_on)]
    falls = [_fall(base, adapted, each) for each in counted]
    lost = forgotten({task: adapted[task]["nll"] - base[task]["nll"] for task in others}, trained_on=trained_on)
    return {
        "retain_pp": _mean(falls),
        "retain_nll": lost["nll"],
        "retain_styled": lost["styled"],
        "retain_text": adapted["text"]["nll"] - base["text"]["nll"],
    }


def _fall(base: Mapping[str, Any], adapted: Mapping[str, Any], each: Counted) -> float | None:
    """The drop of a score in points; None if it was not measured, or is not a fraction of 1."""
    metric = primary(each.name) if each.ours else metric_of(base[each.key], each)
    before, after = (scores[each.key].get(metric) for scores in (base, adapted))
    if before is None or after is None or not (each.ours or 0 <= min(before, after) <= max(before, after) <= 1):
        return None
    return 100 * (before - after)


def forgotten(rises: Mapping[str, float | None], *, trained_on: Benchmarks) -> dict[str, float | None]:
    """Retain-NLL and its parts, from ``rises``: benchmark → rise of the gold answers' NLL over the backbone's.

    ``nll`` is Retain-NLL: the mean over the other benchmarks, except those whose likelihood depends on the style of
    answers (word problems); their mean is ``styled``. ``rises`` and ``falls`` are the parts of Retain-NLL from positive
    and from negative changes, and add up to it. None if a benchmark was not measured, or there is none.
    """
    others = [task for task in ORDER if task not in left_out(trained_on)]
    plain = [rises.get(task) for task in others if not task_class(task).styled]
    return {
        "nll": _mean(plain),
        "rises": _mean([None if rise is None else max(rise, 0.0) for rise in plain]),
        "falls": _mean([None if rise is None else min(rise, 0.0) for rise in plain]),
        "styled": _mean([rises.get(task) for task in others if task_class(task).styled]),
    }


def _mean(rises: list[float | None]) -> float | None:
    known = [rise for rise in rises if rise is not None]
    return sum(known) / len(known) if known and len(known) == len(rises) else None
