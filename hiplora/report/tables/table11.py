"""Table 11: HiP-LoRA and its ablations: what is forgotten, what breaks in a merge, what is learnt."""

from __future__ import annotations

from functools import partial

from hiplora import stats
from hiplora.report.caption import caption, mark_note, paper_note, parity_notes
from hiplora.report.cells import Cell, Column, Table
from hiplora.report.evidence import Evidence, Record, per_seed, seed_cell
from hiplora.report.instances import Instance, unjudged_notes
from hiplora.report.merges import INTERVAL_NOTE, Measure, measure_cell, paired
from hiplora.report.tables.table1 import retained, score

FAIL = partial(Instance.failed, tau=0.9)
POOLED = Measure(column=Column(label="MergeFail (%)", better="down", spread="ci"), value=FAIL)
MERGES = (
    POOLED,
    Measure(
        column=Column(label="MergeFail, adapter-level (%)", better="down", spread="ci"),
        value=FAIL,
        level="adapter",
    ),
    Measure(column=Column(label="MergeFail, size 4 (%)", better="down", spread="ci"), value=FAIL, sizes=(4,)),
)
RETAIN = Column(label="Retain (pp)", decimals=2, better="down")
DOWNSTREAM = Column(label="Downstream average (%)", better="up")
P_FAIL = Column(label="p, MergeFail, bootstrap", decimals=4, spread="none")
P_FAIL_SEEDS = Column(label="p, MergeFail, sign-flip over seeds", decimals=2, spread="none")
P_RETAIN_SEEDS = Column(label="p, Retain, sign-flip over seeds", decimals=2, spread="none")
NOTES = (
    "Retain and downstream average (mean of the four adapters' own scores): mean ± std over training seeds. MergeFail: "
    "merges by addition at τ = 0.9, all sizes pooled, in brackets the 95 % interval.",
    "p: two-sided, of the paired difference to HiP-LoRA of the same parameterisation. The bootstrap p (+1 correction) "
    "takes instances as independent given the seed, which they are not, and is too small. The sign-flip p is exact "
    "over training seeds (Retain); sampling seeds (MergeFail) share adapters, so there it is too small as well; with "
    "three seeds neither can be below 0.25. No correction for the number of comparisons.",
    INTERVAL_NOTE,
)


def build(evidence: Evidence) -> Table:
    """Table 11 from the records of pipelines ``single`` and ``merge``."""
    paper = paper_note(evidence)
    methods = evidence.experiment.keys("single", "method")
    return Table(
        name="table11",
        title=f"Table 11. {evidence.experiment.title}",
        caption=caption(evidence),
        columns=(RETAIN, *(m.column for m in MERGES), DOWNSTREAM, P_FAIL, P_FAIL_SEEDS, P_RETAIN_SEEDS),
        cells=tuple(cell for method in methods for cell in _row(evidence, method)),
        notes=(
            mark_note("seeds or instances"),
            *NOTES,
            *unjudged_notes(evidence.select("merge")),
            *parity_notes(evidence),
            *evidence.notes,
            *([paper] if paper else []),
        ),
        commands=evidence.commands,
    )


def _row(evidence: Evidence, method: str) -> list[Cell]:
    row = evidence.experiment.label(method)
    paper = partial(evidence.paper_value, "table11", method)
    slots = evidence.select("merge", method=method)
    retain, retain_runs, seeds = per_seed(evidence, "single", _retain, method=method)
    own, own_runs, _ = per_seed(evidence, "single", _own, method=method)
    return [
        seed_cell(retain, row=row, column=RETAIN.label, expected=seeds, runs=retain_runs, paper=paper("retain_pp")),
        *(measure_cell(slots, m, row=row, paper=paper("mergefail") if m is POOLED else None) for m in MERGES),
        seed_cell(own, row=row, column=DOWNSTREAM.label, expected=seeds, runs=own_runs, paper=paper("downstream")),
        *_tests(evidence, method, row),
    ]


def _retain(record: Record) -> float | None:
    return retained(record, "retain_pp")


def _own(record: Record) -> float | None:
    return score(record, record["labels"]["task"])


def _tests(evidence: Evidence, method: str, row: str) -> list[Cell]:
    """Paired tests against the full method; the reference rows have none."""
    reference = "hip_relative" if method.startswith("hip_relative") else "hip"
    if method == reference:
        return []
    fail = paired(evidence.select("merge", method=method), evidence.select("merge", method=reference), POOLED)
    cell = partial(Cell, row=row, n=len(fail.differences), n_expected=fail.expected, runs=fail.runs)
    return [
        cell(column=P_FAIL.label, value=fail.bootstrap_p),
        cell(column=P_FAIL_SEEDS.label, value=fail.sign_flip_p),
        _retain_test(evidence, method, reference, row),
    ]


def _retain_test(evidence: Evidence, method: str, reference: str, row: str) -> Cell:
    """Over the training seeds; none before both methods have all of them."""
    ours, runs, seeds = per_seed(evidence, "single", _retain, method=method)
    theirs, others, _ = per_seed(evidence, "single", _retain, method=reference)
    cell = partial(Cell, row=row, column=P_RETAIN_SEEDS.label, n=min(len(ours), len(theirs)), n_expected=seeds)
    if not len(ours) == len(theirs) == seeds:
        return cell(value=None)
    p = stats.sign_flip_p([a - b for a, b in zip(ours, theirs, strict=True)])
    return cell(value=p, runs=(*runs, *others))
