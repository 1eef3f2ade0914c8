"""Table 3: does the importance of a singular direction correlate with its singular value?"""

from collections.abc import Iterator, Sequence

from hiplora.report.correlation import COSTS, Correlation, costs
from hiplora.report.evidence import Evidence
from hiplora.report.notes import table
from hiplora.report.table import Cell, Column, Table

COLUMNS = [
    Column(
        label=f"r of log(1 + σ) and the {words}",
        decimals=2,
        spread="ci",
        level="t",
        measure=f"{metric}/pearson",
        paper="{perturbation}/pearson" if metric == "acc" else "",
    )
    for metric, words in COSTS.items()
]
IN_PAPER = {"noise": "noise_0.1"}  # listed there under its standard deviation
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
    cells = rows(evidence, COLUMNS)
    return table(evidence, "Table 3", columns=COLUMNS, cells=cells, notes=NOTES, counted="interventions")


def rows(evidence: Evidence, columns: Sequence[Column]) -> list[Cell]:
    """The cells of one row per perturbation. A measure is ``cost/coefficient``, with ``/p`` for the coefficient's p."""
    return [cell for key in evidence.experiment.labels for cell in _row(evidence, columns, key)]


def _row(evidence: Evidence, columns: Sequence[Column], perturbation: str) -> Iterator[Cell]:
    label, in_paper = evidence.experiment.label(perturbation), IN_PAPER.get(perturbation, perturbation)
    found: dict[str, Correlation | None] = {}
    for column in columns:
        metric, kind = column.measure.split("/")[:2]
        measured, name = costs(evidence, perturbation, metric), column.measure.removesuffix("/p")
        if name not in found:  # each draws thousands of resamples
            found[name] = measured.pearson() if kind == "pearson" else measured.spearman()
        value: float | None = None
        low, high = None, None
        if (one := found[name]) is not None:
            value, low, high = (one.r, one.low, one.high) if name == column.measure else (one.p, None, None)
        paper = evidence.experiment.paper_value(column.paper.format(perturbation=in_paper))
        yield measured.cost.cell(label, column, value, ci_low=low, ci_high=high, paper=paper)
