"""The measures of drift over all matrices of an adapter, of which each record holds the single matrices."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import fmean, median

from hiplora.stages.results import Drifted, DriftPoint, MatrixDrift

MEASURES: dict[str, Callable[[Sequence[MatrixDrift]], float]] = {
    "overlap": lambda found: fmean(each.overlap for each in found),
    "angle": lambda found: median(each.angle for each in found),
    "worst": lambda found: max(each.angle for each in found),
    "gap": lambda found: median(each.gap for each in found),
    "share": lambda found: fmean(each.share or 0.0 for each in found),
    "intruders": lambda found: fmean(each.intruders for each in found),
    "size": lambda found: fmean(each.size for each in found),
}
PERCENT = ("gap", "share", "size")  # the measures that are shown in percent


def drift_measures(point: DriftPoint) -> dict[str, float]:
    """Measure → its value at one point; degrees, fractions and numbers per matrix."""
    matrices = list(point.matrices.values())
    return {name: measure(matrices) for name, measure in MEASURES.items()}


def shown_measures(point: DriftPoint) -> dict[str, float]:
    """The values of :func:`drift_measures`, those of PERCENT times 100, as Table 15 shows them."""
    return {name: 100 * value if name in PERCENT else value for name, value in drift_measures(point).items()}


def ends(result: Drifted) -> dict[str, dict[str, float]]:
    """The measures of the ``finished`` adapter and of the ``random`` update of its size, as far as they are there."""
    last = [point for point in result.points if point.fraction == 1 and point.matrices]
    return {"random" if point.random else "finished": drift_measures(point) for point in last}


def remaining(result: Drifted) -> str:
    """How much of the leading directions remains, and the intruders, in words; "" without a finished adapter."""
    found = ends(result)
    if "finished" not in found:
        return ""
    chance = f" (random {100 * found['random']['overlap']:.2f} %)" if "random" in found else ""
    words = f"of the {result.k} leading ones {100 * found['finished']['overlap']:.2f} % remain{chance}"
    return f"{words}, {found['finished']['intruders']:.2f} intruders per matrix"
