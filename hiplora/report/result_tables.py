"""Results other than scores and trainings as small tables, for the terminal and a run's part of the page."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import fmean, median

from hiplora.report.drift import shown_measures
from hiplora.report.edits import SHOWN, alone, figures
from hiplora.report.tables.table15 import COLUMNS
from hiplora.stages.results import Costs, Drifted, Edited, Frontier, Metrics, Point, Probed, Result

Rows = list[tuple[str, list[str]]]
OF_PAIRS = ("believed", "change", "flips", "front_change", "front_flips")  # of an edited model beside the backbone


def result_table(result: Result) -> tuple[list[str], Rows] | None:
    """The header and the named rows of a result's table; None for scores and trainings, which are shown otherwise."""
    make = TABLES.get(type(result))
    return None if make is None else make(result)


def _frontier(result: Frontier) -> tuple[list[str], Rows]:
    """A row per size of the update or snapshot; NLLs in nats per token."""
    own = list(dict.fromkeys(name for point in result.points for name in point.learning))
    others = list(dict.fromkeys(name for point in result.points for name in point.benchmarks))
    header = ["‖c ΔW‖", *(f"{name} NLL, validation" for name in own), *(f"{name} NLL" for name in others)]
    rows = [
        (_place(point), [_text(point.norm, 2), *_nlls(point.learning, own), *_nlls(point.benchmarks, others)])
        for point in result.points
    ]
    return header, rows


def _place(point: Point) -> str:
    if point.scale == 0:
        return "backbone"
    size = "as trained" if point.scale == 1 else f"c = {point.scale:g}"
    return size if point.fraction == 1 else f"after {100 * point.fraction:g} % of the steps"


def _nlls(scores: dict[str, Metrics], names: Sequence[str]) -> list[str]:
    return [_text(scores.get(name, {}).get("nll"), 3) for name in names]


def _drift(result: Drifted) -> tuple[list[str], Rows]:
    """The measures of Table 15, a row per fraction of the steps, and one for a random update of the same size."""
    rows: Rows = []
    for point in (point for point in result.points if point.matrices):
        part = "finished" if point.fraction == 1 else f"after {100 * point.fraction:g} %"
        values = shown_measures(point)
        cells = [_text(values[name], column.decimals) for name, column in COLUMNS.items()]
        rows.append(("random update" if point.random else part, cells))
    return [column.label for column in COLUMNS.values()], rows


def _probe(result: Probed) -> tuple[list[str], Rows]:
    """A row per kind of perturbation: the rise of the NLL, averaged over the benchmarks, in nats per token."""
    rises: dict[str, list[float]] = {}
    for each in result.interventions:
        moved = [_rise(result.base.get(name, {}), scores) for name, scores in each.benchmarks.items()]
        if known := [rise for rise in moved if rise is not None]:
            rises.setdefault(each.perturbation, []).append(fmean(known))
    rows = [(name, [f"{len(of)}", *(_text(f(of), 5) for f in (fmean, median, max))]) for name, of in rises.items()]
    return ["interventions", "mean rise of the NLL", "median", "largest"], rows


def _rise(base: Metrics, scores: Metrics) -> float | None:
    before, after = base.get("nll"), scores.get("nll")
    return None if before is None or after is None else after - before


def _edits(result: Edited) -> tuple[list[str], Rows]:
    """The shares that need no comparison with the backbone, by category, in percent."""
    found = figures(alone(result))
    rows = [
        (words.strip(), [_text(values.get(name), 1) for values in found.values()])
        for name, words in SHOWN.items()
        if name not in OF_PAIRS
    ]
    return list(found), rows


def _costs(result: Costs) -> tuple[list[str], Rows]:
    """A row per method."""
    rows = [
        (name, [f"{median(cost.tokens_per_second):.0f}", f"{cost.peak_memory_bytes / 1e9:.2f}"])
        for name, cost in result.methods.items()
    ]
    return ["tokens per second, median of the turns", "peak memory (GB)"], rows


def _text(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:z.{digits}f}".replace("-", "−")


TABLES: dict[type[Result], Callable[..., tuple[list[str], Rows]]] = {
    Frontier: _frontier,
    Drifted: _drift,
    Probed: _probe,
    Edited: _edits,
    Costs: _costs,
}
