"""Table 11: HiP-LoRA and its ablations: what they forget, what breaks in a merge, what they learn."""

from dataclasses import replace

from hiplora import stats
from hiplora.report.aggregate import cell, per_instance, per_seed
from hiplora.report.evidence import Evidence
from hiplora.report.notes import table
from hiplora.report.table import Cell, Column, Table

FULL = "hip"  # the full method, of which every other row lacks a part
FAIL = Column(label="MergeFail (%)", better="down", spread="ci", measure="fail@0.9")
COLUMNS = (
    Column(label="Retain (pp)", decimals=2, better="down", measure="retain_pp", paper="{method}/retain_pp"),
    replace(FAIL, paper="{method}/mergefail"),
    replace(FAIL, label="MergeFail, adapter-level (%)", level="adapter"),
    Column(label="Downstream average (%)", better="up", measure="own", paper="{method}/downstream"),
)
P_FAIL = Column(label="p, MergeFail, bootstrap", decimals=4, spread="none")
P_FAIL_SEEDS = Column(label="p, MergeFail, sign-flip over seeds", decimals=2, spread="none")
P_RETAIN_SEEDS = Column(label="p, Retain, sign-flip over seeds", decimals=2, spread="none")
NOTES = (
    "Retain and downstream average (mean of the four adapters' own scores): mean ± std over training seeds. "
    "MergeFail: merges of four by addition at τ = 0.9, in brackets the 95 % interval; the paper's value pools merges "
    "of two, three and four.",
    "p: two-sided, for the paired difference to HiP-LoRA. The bootstrap p (+1 correction) treats instances as "
    "independent given the seed, which they are not, and is too small. The sign-flip p is exact over training seeds "
    "(Retain); sampling seeds (MergeFail) share adapters, so there it is too small as well; with three seeds neither "
    "can be below 0.25. Nothing is corrected for the number of comparisons.",
)


def build(evidence: Evidence) -> Table:
    """One row per ablation, with paired tests against the full method."""
    cells: list[Cell] = []
    for method in evidence.experiment.keys("single", "method"):
        for column in COLUMNS:
            group = "merge" if column.spread == "ci" else "single"
            cells.append(cell(evidence, evidence.experiment.label(method), column, group, method=method))
        cells += _tests(evidence, method) if method != FULL else []
    columns = (*COLUMNS, P_FAIL, P_FAIL_SEEDS, P_RETAIN_SEEDS)
    return table(evidence, "Table 11", columns=columns, cells=cells, notes=NOTES)


def _tests(evidence: Evidence, method: str) -> list[Cell]:
    """Tests of MergeFail over common instances, and of Retain over seeds once both methods have all of them."""
    row = evidence.experiment.label(method)
    ours, theirs = (per_instance(evidence, FAIL.measure, method=each) for each in (method, FULL))
    bootstrap, flips = (fail := ours.minus(theirs)).p_values()
    ours, theirs = (per_seed(evidence, "retain_pp", method=each) for each in (method, FULL))
    retain = ours.minus(theirs)
    p = stats.sign_flip_p(retain.values) if len(retain.of) == retain.expected else None
    tests = [fail.cell(row, P_FAIL, bootstrap), fail.cell(row, P_FAIL_SEEDS, flips)]
    return [*tests, retain.cell(row, P_RETAIN_SEEDS, p)]
