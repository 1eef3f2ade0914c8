"""Table 6: the correlations of Table 3 with p values, Pearson's beside Spearman's."""

from hiplora.report.correlation import COSTS
from hiplora.report.evidence import Evidence
from hiplora.report.notes import table
from hiplora.report.table import Column, Table
from hiplora.report.tables.table3 import PROBED, rows

KINDS = {"pearson": "r", "spearman": "ρ"}
COLUMNS = [
    Column(
        label=f"{kind.capitalize()}'s {sign}{words}, {cost}",
        decimals=4 if words else 2,
        spread="none" if words else "ci",
        level="t",
        measure=f"{metric}/{kind}{'/p' if words else ''}",
        paper=f"{{perturbation}}/{kind}{'_p' if words else ''}" if metric == "acc" else "",
    )
    for metric, cost in COSTS.items()
    for kind, sign in KINDS.items()
    for words in ("", ", p")
]
NOTES = (
    PROBED,
    "Pearson's r uses log(1 + σ), Spearman's ρ uses σ; in brackets 95 % percentile intervals over 10 000 resamples of "
    "the interventions; p is two-sided, by Student's t, as if interventions were independent and equally spread, and "
    "not corrected for the number of columns. Where few costs are large, intervals and p can disagree: the interval "
    "then is not to be trusted alone. A dash means that nothing changed at all.",
)


def build(evidence: Evidence) -> Table:
    """One row per perturbation; for each cost both coefficients, each followed by its p."""
    cells = rows(evidence, COLUMNS)
    return table(evidence, "Table 6", columns=COLUMNS, cells=cells, notes=NOTES, counted="interventions")
