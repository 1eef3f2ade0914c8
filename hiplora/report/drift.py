"""The measures of drift over all matrices of an adapter, of which each record holds the single matrices."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import fmean, median

from hiplora.stages.results import Drifted, DriftPoint, MatrixDrift

MEASURES: dict[str, Callable[[Sequence[MatrixDrift]], float]] = {
    "overlap": lambda found: fmean(each.overlap for each in found),
    "angle": lambda found: median(each.angle for each in found),
    "worst": lambda found: max(each.angle for each in found),
    "gap": lambda found: 100 * median(each.gap for each in found),
    "share": lambda found: 100 * fmean(each.share or 0.0 for each in found),
    "intruders": lambda found: fmean(each.intruders for each in found),
    "size": lambda found: 100 * fmean(each.size for each in found),
}


def measured(point: DriftPoint) -> dict[str, float]:
    """Measure → its value at one point; degrees, percent and numbers per matrix, as Table 15 shows them."""
    matrices = list(point.matrices.values())
    return {name: measure(matrices) for name, measure in MEASURES.items()}


def ends(result: Drifted) -> tuple[DriftPoint, DriftPoint]:
    """The finished adapter, and the random update of its size."""
    trained, random = (max((p for p in result.points if p.random is drawn), key=_late) for drawn in (False, True))
    return trained, random


def _late(point: DriftPoint) -> float:
    return point.fraction
