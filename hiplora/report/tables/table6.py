"""Table 6: the correlations of Table 3 with p values, Pearson's beside Spearman's."""

from collections.abc import Iterator

from hiplora.report.correlation import COSTS, Correlation, costs
from hiplora.report.evidence import Evidence
from hiplora.report.notes import table
from hiplora.report.table import Cell, Column, Table
from hiplora.report.tables.table3 import PROBED, cell

KINDS = {"pearson": "r", "spearman": "ρ"}
COLUMNS = [
    Column(
        label=f"{kind.capitalize()}'s {sign}{words}, {cost}",
        decimals=4 if words else 2,
        spread="none" if words else "ci",
        level="t",
        paper=f"{{perturbation}}/{kind}{'_p' if words else ''}" if metric == "acc" else "",
    )
    for metric, cost in COSTS.items()
    for kind, sign in KINDS.items()
    for words in ("", ", p")
]
NOTES = (
    PROBED,
    "Pearson's r uses log(1 + σ), Spearman's ρ uses σ; p is two-sided, by Student's t, as if interventions were "
    "independent, and not corrected for the number of columns.",
)


def build(evidence: Evidence) -> Table:
    """One row per perturbation; for each cost both coefficients, each followed by its p."""
    cells = [cell for key in evidence.experiment.labels for cell in _row(evidence, key)]
    return table(evidence, "Table 6", columns=COLUMNS, cells=cells, notes=NOTES, counted="interventions")


def _row(evidence: Evidence, perturbation: str) -> Iterator[Cell]:
    columns = iter(COLUMNS)
    for metric in COSTS:
        measured = costs(evidence, perturbation, metric)
        for kind in KINDS:
            found: Correlation | None = getattr(measured, kind)() if measured else None
            values = ((found.r, found.low, found.high), (found.p, None, None)) if found else ((None,) * 3,) * 2
            for column, (value, low, high) in zip((next(columns), next(columns)), values, strict=True):
                yield cell(evidence, perturbation, column, measured, value=value, interval=(low, high))
