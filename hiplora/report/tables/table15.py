"""Table 15: does the leading singular subspace, cached before training, remain the leading one?"""

from collections.abc import Callable, Iterator
from statistics import fmean, median

from hiplora.report.frame import Entry, Evidence
from hiplora.report.measures import joined
from hiplora.report.notes import table
from hiplora.report.table import Cell, Column, Table
from hiplora.stages.results import Drifted, DriftPoint, MatrixDrift

Measure = Callable[[list[MatrixDrift]], float]
MEASURES: dict[str, tuple[Column, Measure]] = {
    "overlap": (
        Column(label="overlap with the old subspaces", decimals=4, better="up", spread="none"),
        lambda found: fmean(each.overlap for each in found),
    ),
    "angle": (
        Column(label="largest angle, median (°)", decimals=1, better="down", spread="none"),
        lambda found: median(each.angle for each in found),
    ),
    "worst": (
        Column(label="largest angle, worst matrix (°)", decimals=1, better="down", spread="none"),
        lambda found: max(each.angle for each in found),
    ),
    "gap": (
        Column(label="gap behind the subspace, median (% of σ_1)", decimals=2, spread="none"),
        lambda found: 100 * median(each.gap for each in found),
    ),
    "share": (
        Column(label="energy that the old subspaces see (%)", decimals=1, spread="none"),
        lambda found: 100 * fmean(each.share or 0.0 for each in found),
    ),
    "intruders": (
        Column(label="intruders per matrix", decimals=2, better="down", spread="none"),
        lambda found: fmean(each.intruders for each in found),
    ),
    "size": (
        Column(label="‖ΔW‖ / ‖W‖ (%)", decimals=2, spread="none"),
        lambda found: 100 * fmean(each.size for each in found),
    ),
}
NOTES = (
    "The table compares the leading k left and right singular subspaces of every adapted matrix before training with "
    "those after the update is added. Overlap: ‖UᵀU'‖² / k, mean over both sides and all matrices; 1 is the same "
    "subspace. Largest angle: the largest principal angle of a matrix, over both sides. Where the gap "
    "(σ_k − σ_{k+1}) / σ_1 is small, the last direction is ill-determined, and its angle is large after any change: "
    "compare it with that of the random update.",
    "An intruder is a new left direction whose cosine with every cached old one is below 0.5. The random update has "
    "the same rank and norm as the trained one on every matrix. A value is the mean over a method's adapters, one per "
    "task.",
)


def build(evidence: Evidence) -> Table:
    """For each method a row per fraction of the steps, one for the finished adapter, one for the random update."""
    methods = evidence.experiment.keys("drift", "method")
    cells = [cell for method in methods for cell in _rows(evidence, method)]
    columns = [column for column, _ in MEASURES.values()]
    return table(evidence, "Table 15", columns=columns, cells=cells, notes=NOTES, counted="adapters")


def _rows(evidence: Evidence, method: str) -> Iterator[Cell]:
    slots = evidence.select("drift", method=method)
    entries = [entry for slot in slots for entry in evidence.slots[slot].entries if entry.role == "drift"]
    there = [entry for entry in entries if entry.record is not None]
    points = {(p.fraction, p.random): None for entry in there for p in _points(entry)} or {(1.0, False): None}
    for at in points:
        for column, measure in MEASURES.values():
            found = [(entry, measure(list(point.matrices.values()))) for entry, point in _at(there, at)]
            yield Cell(
                row=evidence.experiment.label(method) + _words(*at),
                column=column.label,
                value=fmean(value for _, value in found) if found else None,
                n=len(found),
                n_expected=len(slots),
                marks=joined(entry.marks for entry, _ in found),
                runs=tuple(entry.record.id for entry, _ in found if entry.record is not None),
            )


def _at(entries: list[Entry], at: tuple[float, bool]) -> list[tuple[Entry, DriftPoint]]:
    return [(entry, point) for entry in entries for point in _points(entry) if (point.fraction, point.random) == at]


def _points(entry: Entry) -> list[DriftPoint]:
    result = entry.record.result if entry.record is not None else None
    return result.points if isinstance(result, Drifted) else []


def _words(fraction: float, random: bool) -> str:
    if random:
        return ", random update of its size"
    return "" if fraction == 1 else f", after {100 * fraction:g} % of the steps"
