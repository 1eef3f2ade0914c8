"""Table 3: does the importance of a singular direction correlate with its singular value?"""

from collections.abc import Iterator

from hiplora.report.correlation import COSTS, Costs, costs
from hiplora.report.evidence import Evidence
from hiplora.report.notes import table
from hiplora.report.table import Cell, Column, Table

COLUMNS = [
    Column(label=f"r of log(1 + σ) and the {words}", decimals=2, spread="ci", level="t", paper=paper)
    for words, paper in zip(COSTS.values(), ("{perturbation}/pearson", ""), strict=True)
]
PROBED = (
    "One direction u_i v_iᵀ of one attention matrix is perturbed at a time: zero sets σ_i to 0, flip changes its sign, "
    "noise multiplies it by 1 + ε with normal ε of standard deviation 0.1. One direction is drawn from each of n "
    "quantile bins of σ over the probed matrices. The drop in accuracy and the rise of the gold answers' NLL are means "
    "over the same items of two multiple-choice benchmarks."
)
NOTES = (
    PROBED,
    "r is Pearson's; in brackets its 95 % percentile interval over 10 000 resamples of the interventions. These share "
    "backbone and items, and directions of one matrix are not independent of each other, so the intervals only "
    "describe these interventions. A dash means that nothing changed at all.",
)


def build(evidence: Evidence) -> Table:
    """One row per perturbation."""
    cells = [cell for key in evidence.experiment.labels for cell in _row(evidence, key)]
    return table(evidence, "Table 3", columns=COLUMNS, cells=cells, notes=NOTES, counted="interventions")


def _row(evidence: Evidence, perturbation: str) -> Iterator[Cell]:
    for column, metric in zip(COLUMNS, COSTS, strict=True):
        measured = costs(evidence, perturbation, metric)
        found = measured.pearson() if measured is not None else None
        value, interval = (found.r, (found.low, found.high)) if found else (None, (None, None))
        yield cell(evidence, perturbation, column, measured, value=value, interval=interval)


def cell(
    evidence: Evidence,
    perturbation: str,
    column: Column,
    measured: Costs | None,
    *,
    value: float | None,
    interval: tuple[float | None, float | None],
) -> Cell:
    """A cell over the interventions of one kind; empty without a probe."""
    return Cell(
        row=evidence.experiment.label(perturbation),
        column=column.label,
        value=value,
        ci_low=interval[0],
        ci_high=interval[1],
        n=len(measured.cost) if measured else 0,
        n_expected=_expected(evidence, perturbation),
        paper=_paper(evidence, column, perturbation),
        marks=measured.entry.marks if measured else "",
        runs=measured.entry.runs if measured else (),
    )


def _expected(evidence: Evidence, perturbation: str) -> int:
    """The number of interventions of one kind in the probe that the table needs."""
    probes = [entry.stage for slot in evidence.slots for entry in slot.entries]
    return max((getattr(stage, "count", {}).get(perturbation, 0) for stage in probes), default=0)


def _paper(evidence: Evidence, column: Column, perturbation: str) -> float | None:
    """The paper's value, where noise is listed under its standard deviation; None without one."""
    name = {"noise": "noise_0.1"}.get(perturbation, perturbation)
    return evidence.experiment.paper_value(column.paper.format(perturbation=name)) if column.paper else None
