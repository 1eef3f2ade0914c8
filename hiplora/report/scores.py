"""Scores as text: tables of models side by side, and a sentence on what an adapter forgot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hiplora.evaluation.lm_tasks import THEIRS, Counted, LmScore, check_counted, counted, metric_of
from hiplora.evaluation.retention import Benchmarks, left_out, retention
from hiplora.stages.results import Metrics, Scores
from hiplora.tasks import ORDER, primary

NORMAL_95 = 1.96  # standard errors on either side


def number(value: Any, pattern: str = ".3f") -> str:
    """A number as text; a dash if it was not measured."""
    return "-" if value is None else format(value, pattern)


def tables(columns: Mapping[str, Scores]) -> str:
    """Every score of several models, one column each, and below them those of lm-eval's tasks."""
    own = table({name: scores.benchmarks for name, scores in columns.items()})
    return "\n".join(filter(None, [own, lm_eval_table(columns)]))


def table(columns: Mapping[str, Mapping[str, Metrics]]) -> str:
    """Every score of several models with its n, one column each; "" without a column. General text has no n."""
    if not columns:
        return ""
    lines = [f"{'benchmark':<14}{'metric':<12}{'n':>5}" + "".join(f"  {name:>9}" for name in columns)]
    for benchmark, scores in next(iter(columns.values())).items():
        items = number(scores.get("n"), ".0f")
        for metric in scores:
            if metric not in ("n", "tokens"):
                numbers = [number(column.get(benchmark, {}).get(metric)) for column in columns.values()]
                lines.append(
                    f"{benchmark:<14}{metric:<12}{items:>5}"
                    + "".join(f"  {each:>{max(9, len(name))}}" for name, each in zip(columns, numbers, strict=True))
                )
    return "\n".join(lines)


def lm_eval_table(columns: Mapping[str, Scores]) -> str:
    """The scores of lm-eval's tasks, with n and half the width of a 95 % interval; "" without such tasks.

    The subtasks of a group with scores of its own are only in the record.
    """
    names = dict.fromkeys(
        name for scores in columns.values() for name, task in scores.lm_eval.items() if not task.group
    )
    if not names:
        return ""
    width = max(14, *(len(name) + 1 for name in names))
    lines = [f"{'lm-eval':<{width}}{'metric':<26}{'n':>6}" + "".join(f"  {name:>16}" for name in columns)]
    for name in names:
        found = [scores.lm_eval.get(name) for scores in columns.values()]
        first = next(task for task in found if task is not None)
        for metric in first.metrics:
            numbers = "".join(f"  {_with_interval(task, metric):>16}" for task in found)
            lines.append(f"{name:<{width}}{metric:<26}{first.n:>6}{numbers}")
    return "\n".join(lines)


def _with_interval(task: LmScore | None, metric: str) -> str:
    if task is None or task.metrics.get(metric) is None:
        return number(None)
    error = task.stderr.get(metric)
    return _short(task.metrics[metric]) + (f" ±{_short(NORMAL_95 * error)}" if error else "")  # 0: all items alike


def _short(value: float | None) -> str:
    """Three decimals; four significant digits from 1000 on, for example for a perplexity."""
    return number(value, ".3f" if value is None or abs(value) < 1000 else ".4g")


def forgotten(base: Scores, adapted: Scores, *, trained_on: Benchmarks, retain: Sequence[str] = ()) -> str:
    """A sentence with Retain, Retain-NLL and general text over the benchmarks that ``trained_on`` does not name.

    Raises:
        UserError: ``retain`` names a metric that was not scored, or one that is better when lower.
    """
    counts = counted_by(adapted, retain)
    found = retention(base.every, adapted.every, trained_on=trained_on, counts=counts)
    styled = found["retain_styled"]
    beside = "" if styled is None else f" (word problems beside it {styled:+.3f})"
    left = left_out(trained_on)
    over = ", ".join(_counts(adapted, each) for each in counts if each.key not in left)
    asked = [each.name for each in counts or map(Counted.benchmark, ORDER) if each.ours and each.key not in left]
    unscored = [name for name in asked if adapted.every[name].get(primary(name)) is None]
    why = " (nothing is left that it counts)" if counts and not over else ""
    why += f" (no score of {_and(unscored)}; evaluation.retain=[…] names what counts)" if unscored else ""
    return (
        f"Forgotten{f' outside {_and(left)}' if left else ''} (lower is better): "
        f"Retain {number(found['retain_pp'], '+.2f')} pp{f' over {over}' if over else ''}{why}, "
        f"NLL {number(found['retain_nll'], '+.3f')}{beside}, "
        f"general text {number(found['retain_text'], '+.3f')} nats per token"
    )


def _and(names: Sequence[str]) -> str:
    """Names as text: ``a``, ``a and b``, ``a, b and c``."""
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


def counted_by(scores: Scores, retain: Sequence[str]) -> list[Counted]:
    """The metrics of these scores that Retain counts.

    Raises:
        UserError: ``retain`` names a metric that was not scored, or one that is better when lower.
    """
    found = counted(retain, scores.lm_eval)
    for each in found:
        if not each.ours:
            task = scores.lm_eval[each.name]
            check_counted(task.metrics, task.better, each)
    return found


def _counts(scores: Scores, each: Counted) -> str:
    name = f"{THEIRS}{each.name}" if each.name in ORDER else each.name
    return each.name if each.ours else f"{name} {metric_of(scores.lm_eval[each.name].metrics, each)}"
