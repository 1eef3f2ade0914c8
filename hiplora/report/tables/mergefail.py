"""MergeFail: the share of merges in which some task falls below τ times its score before the merge."""

from dataclasses import replace
from itertools import product

from hiplora.report.aggregate import cell
from hiplora.report.evidence import Evidence
from hiplora.report.measures import TAUS
from hiplora.report.notes import table
from hiplora.report.table import Cell, Column, Table

COLUMNS = [
    Column(label=f"τ = {tau}{words} (%)", better="down", spread="ci", measure=f"fail@{tau}", level=level)
    for level, words in {"seed": "", "adapter": ", adapter-level"}.items()
    for tau in TAUS
]
CHANCE = [Column(label=f"by chance, τ = {tau} (%)", spread="none", measure=f"chance@{tau}") for tau in TAUS]
NOTE = (
    "By chance: the probability that a merge that loses nothing falls below τ in some task, if every item were "
    "answered anew with the success rate before the merge. The true chance is smaller where most items keep their "
    "answers. A rate that is not above it does not by itself show a loss."
)
GROUPS = {"2 adapters": (2,), "3 adapters": (3,), "4 adapters": (4,), "all sizes": (2, 3, 4)}


def build(evidence: Evidence) -> Table:
    """One row per method and size; the columns are the values of τ, with both bootstraps."""
    cells: list[Cell] = []
    for method, (words, sizes) in product(evidence.experiment.keys("merge", "method"), GROUPS.items()):
        row, columns = f"{evidence.experiment.label(method)}, {words}", (*COLUMNS, *CHANCE)
        cells += [cell(evidence, row, replace(column, sizes=sizes), "merge", method=method) for column in columns]
    return table(evidence, "MergeFail", columns=[*COLUMNS, *CHANCE], cells=cells, notes=[NOTE], counted="instances")
