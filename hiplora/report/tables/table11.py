"""Table 11: HiP-LoRA and its ablations: what they forget, what breaks in a merge, what they learn."""

from dataclasses import replace

from hiplora import stats
from hiplora.report.aggregate import cell, differences, per_instance, per_seed
from hiplora.report.evidence import Evidence
from hiplora.report.notes import METHODS, PAIRED, PAIRED_NOTE, table
from hiplora.report.table import Cell, Column, Table

FULL = "hip"  # the full method, of which every other row lacks a part
FAIL = Column(label="MergeFail (%)", better="down", spread="ci", measure="fail@0.9")
SINGLE = (
    Column(label="Downstream average (%)", better="up", measure="own", paper="{method}/downstream"),
    Column(label="Retain (pp)", decimals=2, better="down", measure="retain_pp", paper="{method}/retain_pp"),
    Column(label="Retain-NLL (nats/token)", decimals=3, better="down", measure="retain_nll"),
    Column(label="Retain-text (nats/token)", decimals=3, better="down", measure="retain_text"),
)
BROKEN = (
    replace(FAIL, label="MergeFail, adapter-level (%)", level="adapter"),
    Column(label="NLL rise of merges", decimals=3, better="down", spread="ci", level="adapter", measure="nll_rise"),
)
MERGED = (replace(FAIL, paper="{method}/mergefail"), *BROKEN)
P_FAIL = Column(label="p, MergeFail, bootstrap", decimals=4, spread="none")
P_FAIL_SEEDS = Column(label="p, MergeFail, sign-flip over seeds", decimals=2, spread="none")
P_RETAIN_SEEDS = Column(label="p, Retain, sign-flip over seeds", decimals=2, spread="none")
NOTES = (
    "Downstream average: mean of the four adapters' own scores. It and what they forget (see Table 1): mean ± std over "
    "training seeds. MergeFail: merges of four by addition at τ = 0.9, in brackets the 95 % interval; the paper's "
    "value pools merges of two, three and four. NLL rise: of the gold answers of the merged tasks, after − before, in "
    "nats per token; its interval is adapter-level.",
    f"{PAIRED_NOTE} For merges the differences are paired by instance, and the interval is adapter-level.",
    "p: two-sided, for the paired difference to HiP-LoRA. The bootstrap p (+1 correction) treats instances as "
    "independent given the seed, which they are not, and is too small. The sign-flip p is exact over training seeds "
    "(Retain); sampling seeds (MergeFail) share adapters, so there it is too small as well; with three seeds neither "
    "can be below 0.25. Nothing is corrected for the number of comparisons.",
)


def build(evidence: Evidence) -> Table:
    """One row per method, then each ablation minus the full method, with paired tests."""
    methods = evidence.experiment.keys("single", "method")
    groups = {"single": SINGLE, "merge": MERGED}
    cells = [
        cell(evidence, evidence.experiment.label(method), column, group, method=method)
        for method in methods
        for group, columns in groups.items()
        for column in columns
    ]
    ablations = [method for method in methods if method != FULL]
    pairs = [(method, FULL) for method in ablations]
    apart, paired = differences(evidence, SINGLE, "single", pairs)
    broken, of_merges = differences(evidence, BROKEN, "merge", pairs)
    paired += [*of_merges, *(test for method in ablations for test in _tests(evidence, method))]
    columns = (*SINGLE, *MERGED, *apart, *broken, P_FAIL, P_FAIL_SEEDS, P_RETAIN_SEEDS)
    return table(evidence, "Table 11", columns=columns, sections={METHODS: cells, PAIRED: paired}, notes=NOTES)


def _tests(evidence: Evidence, method: str) -> list[Cell]:
    """Tests of MergeFail over common instances, and of Retain over seeds once both methods have all of them."""
    row = " − ".join(map(evidence.experiment.label, (method, FULL)))  # as that of the differences
    ours, theirs = (per_instance(evidence, FAIL.measure, method=each) for each in (method, FULL))
    bootstrap, flips = (fail := ours.minus(theirs)).p_values()
    ours, theirs = (per_seed(evidence, "retain_pp", method=each) for each in (method, FULL))
    retain = ours.minus(theirs)
    p = stats.sign_flip_p(retain.values) if len(retain.of) == retain.expected else None
    tests = [fail.cell(row, P_FAIL, bootstrap), fail.cell(row, P_FAIL_SEEDS, flips)]
    return [*tests, retain.cell(row, P_RETAIN_SEEDS, p)]
