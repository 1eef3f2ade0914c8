"""Table 14: merge operators with and without a calibration before them, on one size-4 instance per sampling seed."""

from hiplora.report.aggregate import rows
from hiplora.report.evidence import Evidence
from hiplora.report.notes import table
from hiplora.report.table import Column, Table

COLUMNS = (
    Column(
        label="NLL rise (nats/token)",
        decimals=3,
        better="down",
        spread="ci",
        measure="nll_rise",
        sizes=(4,),
        level="t",  # a bootstrap of one merge per sampling seed would only tell the smallest and the largest
    ),
)
NOTES = (
    "One merge of four adapters per sampling seed, the same for every row. Only likelihoods are computed, nothing is "
    "generated. NLL rise: of the gold answers, after − before, mean over the four tasks. In brackets: the 95 % "
    "Student-t interval over these merges as if they were independent; merges that share adapters are not, and make it "
    "too narrow.",
    "Rescale only and random directions are controls: Pico's rescaling without its coefficients, and its coefficients "
    "on random directions. An effect that they have too is not due to Pico's choice of directions.",
)


def build(evidence: Evidence) -> Table:
    """One row per method, operator and calibration."""
    cells = rows(evidence, COLUMNS, "merge", "method", "merge", "calibration")
    return table(evidence, "Table 14", columns=COLUMNS, cells=cells, notes=NOTES, counted="merges")
