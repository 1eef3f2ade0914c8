"""Table 15: does the leading singular subspace, cached before training, remain the leading one?"""

from collections.abc import Iterator

from hiplora.report.aggregate import Sample
from hiplora.report.drift import shown_measures
from hiplora.report.evidence import Evidence
from hiplora.report.notes import table
from hiplora.report.slots import Number
from hiplora.report.table import Cell, Column, Table
from hiplora.stages.results import Drifted

COLUMNS = {  # by measure
    "overlap": Column(label="overlap with the old subspaces", decimals=4, better="up", spread="none"),
    "angle": Column(label="largest angle, median (°)", decimals=1, better="down", spread="none"),
    "worst": Column(label="largest angle, worst matrix (°)", decimals=1, better="down", spread="none"),
    "gap": Column(label="gap behind the subspace, median (% of σ_1)", decimals=2, spread="none"),
    "share": Column(label="energy in the old subspaces, mean (%)", decimals=1, spread="none"),
    "intruders": Column(label="intruders per matrix", decimals=2, better="down", spread="none"),
    "size": Column(label="‖ΔW‖ / ‖W‖ (%)", decimals=2, spread="none"),
}
NOTES = (
    "The table compares the leading k left and right singular subspaces of every adapted matrix before training with "
    "those after the update is added. Overlap: ‖UᵀU'‖² / k, mean over both sides and all matrices; 1 is the same "
    "subspace. Largest angle: the largest principal angle of a matrix, over both sides. Where the gap "
    "(σ_k − σ_{k+1}) / σ_1 is small, the last direction is ill-determined, and its angle is large after any change: "
    "compare it with that of the random update. A direction that another one has overtaken, so that it is no longer "
    "among the leading k, counts as 90° even if it has not turned: gains of HiP-LoRA that fall, and a residual that "
    "grows outside the subspaces, both do this.",
    "Energy: the share of ‖ΔW‖² of a matrix whose left or right side lies in the old subspaces. Here every matrix "
    "counts alike; in Table 16 those with a larger update count more.",
    "An intruder is a new left direction whose cosine with every cached old one is below 0.5. The random update has "
    "the same rank and norm as the trained one on every matrix. A value is the mean over a method's adapters, one per "
    "task.",
)


def build(evidence: Evidence) -> Table:
    """For each method a row per fraction of the steps, one for the finished adapter, one for the random update."""
    methods = evidence.experiment.keys("drift", "method")
    cells = [cell for method in methods for cell in _rows(evidence, method)]
    return table(evidence, "Table 15", columns=[*COLUMNS.values()], cells=cells, notes=NOTES, counted="adapters")


def _rows(evidence: Evidence, method: str) -> Iterator[Cell]:
    slots = evidence.select("drift", method=method)
    found = [
        (entry, {(point.fraction, point.random): point for point in entry.result.points})
        for slot in slots
        for entry in evidence.slots[slot].entries
        if isinstance(entry.result, Drifted)
    ]
    for at in dict.fromkeys(at for _, points in found for at in points) or [(1.0, False)]:
        row = evidence.experiment.label(method) + _words(*at)
        there = [(entry, shown_measures(points[at])) for entry, points in found if at in points]
        for measure, column in COLUMNS.items():
            numbers = [Number.of(values[measure], [entry]) for entry, values in there]
            sample = Sample(dict(enumerate(numbers)), len(slots))
            yield sample.cell(row, column, sample.mean if sample.of else None)


def _words(fraction: float, random: bool) -> str:
    if random:
        return ", random update of its size"
    return "" if fraction == 1 else f", after {100 * fraction:g} % of the steps"
