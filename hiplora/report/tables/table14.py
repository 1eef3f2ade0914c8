"""Table 14: merge operators with and without a calibration before them, on one size-4 instance per sampling seed."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import product

from hiplora.report.aggregate import Sample, per_instance, pooled, rows
from hiplora.report.evidence import Evidence
from hiplora.report.notes import METHODS, PAIRED, table
from hiplora.report.table import Cell, Column, Table

RISE = Column(
    label="NLL rise (nats/token)",
    decimals=3,
    better="down",
    spread="ci",
    measure="nll_rise",
    sizes=(4,),
    level="t",  # a bootstrap of one merge per sampling seed would only tell the smallest and the largest
)
CHANGE = replace(RISE, label=f"Δ {RISE.label}")
METHOD_PAIRS = [("hip", "lora")]
NONE, RESCALE, PICO = "none", "rescale", "pico"
AVERAGE = "task_arithmetic"  # what the other operators are compared with
MEAN = "mean over operators"
NOTES = (
    "One merge of four adapters per sampling seed, the same for every row. Only likelihoods are computed, nothing is "
    "generated. NLL rise: of the gold answers, after − before, mean over the four tasks. In brackets: the 95 % "
    "Student-t interval over these merges as if they were independent; merges that share adapters are not, and make it "
    "too narrow.",
    "Without a calibration the operators differ in the size of the merged update as well: task arithmetic averages the "
    "updates, DARE and TSV-M add what they keep of them, TIES, DELLA, KnOTS and Core Space average the entries whose "
    "sign wins. A calibration brings the norm of every merged matrix to the mean of the adapters' norms, so that only "
    "rows with the same calibration compare operators at equal size.",
    "Differences are paired by merge, with the same interval. A mean over operators is taken of each merge first, and "
    "only of merges that every operator has. Nothing is corrected for the number of comparisons.",
    "Rescale only and random directions are controls: Pico's rescaling without its coefficients, and its coefficients "
    "on random directions. An effect that they have too is not due to Pico's choice of directions.",
)


def build(evidence: Evidence) -> Table:
    """One row per method, operator and calibration, then differences paired by merge."""
    cells = rows(evidence, [RISE], "merge", "method", "merge", "calibration")
    sections = {METHODS: cells, PAIRED: list(_differences(evidence))}
    return table(evidence, "Table 14", columns=[RISE, CHANGE], sections=sections, notes=NOTES, counted="merges")


def _differences(evidence: Evidence) -> Iterator[Cell]:
    """Between methods, from averaging, and from Pico to its controls, each paired by merge."""
    methods, operators, calibrations = (
        evidence.experiment.keys("merge", axis) for axis in ("method", "merge", "calibration")
    )
    label = evidence.experiment.label

    def rise(method: str, operator: str, calibration: str) -> Sample:
        point = {"method": method, "merge": operator, "calibration": calibration}
        return per_instance(evidence, RISE.measure, RISE.sizes, **point)

    def over_operators(method: str, calibration: str) -> Sample:
        return pooled([rise(method, operator, calibration) for operator in operators])

    def difference(row: str, one: Sample, other: Sample) -> Cell:
        return one.minus(other).mean_cell(row, CHANGE)

    for one, other in METHOD_PAIRS:
        row = f"{label(one)} − {label(other)}"
        for calibration, operator in product((NONE, RESCALE), operators):
            pair = rise(one, operator, calibration), rise(other, operator, calibration)
            yield difference(f"{row}, {label(operator, calibration)}", *pair)
        for calibration in calibrations:
            pair = over_operators(one, calibration), over_operators(other, calibration)
            yield difference(f"{row}, {MEAN}, {label(calibration)}", *pair)
    for method in methods:
        for calibration, operator in product((NONE, RESCALE), [each for each in operators if each != AVERAGE]):
            row = f"{label(method, calibration)}: {label(operator)} − {label(AVERAGE)}"
            yield difference(row, rise(method, operator, calibration), rise(method, AVERAGE, calibration))
        for operator in operators:
            row = f"{label(method, operator)}: {label(PICO)} − {label(RESCALE)}"
            yield difference(row, rise(method, operator, PICO), rise(method, operator, RESCALE))
        for other in (each for each in calibrations if each != PICO):
            row = f"{label(method)}, {MEAN}: {label(PICO)} − {label(other)}"
            yield difference(row, over_operators(method, PICO), over_operators(method, other))
