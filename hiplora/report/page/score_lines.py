"""Scores before and after as lines of text, for the page's view of a run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from hiplora.report.page.facts import trained_on
from hiplora.stages.record import Record
from hiplora.stages.results import Scores

LOWER = ("nll", "empty")  # metrics that are better when lower


@dataclass(frozen=True)
class Line:
    """A metric before and after as texts, empty if not measured; ``alone``: of a merge's adapter by itself.

    ``change`` is relative to ``alone`` if it exists, otherwise to ``before``. ``n`` is the number of items.
    """

    name: str
    n: str
    before: str
    alone: str
    after: str
    change: str
    better: bool | None = None


def score_lines(result: Scores, base: Record | None, alone: Sequence[Record]) -> Iterator[Line]:
    """The scores of the benchmarks; of a record with tasks of lm-eval only these, as another has the benchmarks."""
    if result.lm_eval:
        yield from _lm_eval_lines(result, base)
        return
    before = base.result.benchmarks if base is not None and isinstance(base.result, Scores) else {}
    for name, scores in result.benchmarks.items():
        own = [each.result for each in alone if trained_on(each) == name]
        for metric, value in scores.items():
            if metric in ("n", "tokens"):
                continue
            old = before.get(name, {}).get(metric)
            single = [each.benchmarks.get(name, {}).get(metric) for each in own if isinstance(each, Scores)]
            lower = metric in LOWER
            percent = metric != "nll"
            line = _line(f"{name} {metric}", old, next(iter(single), None), value, percent=percent, higher=not lower)
            if alone and line.change and not line.alone:
                line = replace(line, change=f"{line.change} (after − before)")
            yield replace(line, n=_items(scores.get("n")))


def _lm_eval_lines(result: Scores, base: Record | None) -> Iterator[Line]:
    """The scores of lm-eval's tasks, without the subtasks of a group."""
    before = base.result.lm_eval if base is not None and isinstance(base.result, Scores) else {}
    for name, task in result.lm_eval.items():
        for metric, value in task.metrics.items() if not task.group else ():
            old = before[name].metrics.get(metric) if name in before else None
            higher = task.better.get(metric)
            yield replace(_line(f"{name} {metric}", old, None, value, percent=False, higher=higher), n=_items(task.n))


def _line(
    name: str, before: float | None, alone: float | None, after: float | None, *, percent: bool, higher: bool | None
) -> Line:
    """``higher`` says whether higher is better; None if that is unknown."""
    factor, digits, unit = (100, 1, " %") if percent else (1, 3, "")

    def text(value: float | None) -> str:
        return "" if value is None else f"{_rounded(factor * value, digits)}{unit}"

    reference = before if alone is None else alone
    if reference is None or after is None:
        return Line(name, "", text(before), text(alone), text(after), "")
    change = round(factor * (after - reference), digits)
    moved = _rounded(change, digits, sign="+").replace("-", "−") if change else f"{0:.{digits}f}"
    better = None if change == 0 or higher is None else (change > 0) == higher
    return Line(name, "", text(before), text(alone), text(after), moved, better)


def _rounded(value: float, digits: int, *, sign: str = "") -> str:
    """A number with a fixed number of decimals; from 10,000 on, as of a perplexity, with four digits in all."""
    return f"{value:{sign}.{digits}f}" if abs(value) < 10_000 else f"{value:{sign}.4g}"


def _items(count: float | None) -> str:
    return "" if count is None else f"{count:.0f}"
