"""Differences: HiP-LoRA against LoRA and Proj-LoRA, run by run, with the interval of the difference.

Methods share training seeds, and merges share their instances, so a difference is taken within each pair. Two
intervals that overlap say little about it; this table is what a claim of "better" stands on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np

from hiplora import stats
from hiplora.report.caption import caption, mark_note, parity_notes
from hiplora.report.cells import Cell, Column, Table
from hiplora.report.evidence import Evidence, Record, metric, per_seed
from hiplora.report.instances import Instance, unmeasured_notes
from hiplora.report.merges import INTERVAL_NOTE, Measure, paired
from hiplora.report.tables.table1 import retained, score

PAIRS = (
    ("hip", "lora"),
    ("hip", "proj"),
    ("proj", "lora"),  # what the projection does alone
    ("hip_relative", "lora"),
    ("hip_relative", "proj"),
    ("hip_relative", "hip"),
)
DIFFERENCE = Column(label="difference", decimals=3, spread="ci")
ADAPTER = Column(label="difference, adapter-level", decimals=3, spread="ci")
P_BOOTSTRAP = Column(label="p, bootstrap", decimals=4, spread="none")
P_SEEDS = Column(label="p, sign-flip over seeds", decimals=2, spread="none")


def _own_score(record: Record) -> float | None:
    return score(record, record["labels"]["task"])


def _own_nll(record: Record) -> float | None:
    return metric(record, "adapted", record["labels"]["task"], "nll")


SINGLE: dict[str, Callable[[Record], float | None]] = {
    "own score ↑ (pp)": _own_score,
    "own NLL ↓ (nats/token)": _own_nll,
    "Retain ↓ (pp)": partial(retained, key="retain_pp"),
    "Retain-NLL ↓ (nats/token)": partial(retained, key="retain_nll"),
    "Retain-text ↓ (nats/token)": partial(retained, key="retain_text"),
}
MERGED: dict[str, Callable[[Instance], float | None]] = {
    "mean absolute drop ↓ (pp)": Instance.drop,
    "NLL rise ↓ (nats/token)": Instance.nll_rise,
    "MergeFail ↓ (pp)": partial(Instance.failed, tau=0.9),
}
NOTES = (
    "A row is the first method minus the second. ↑ and ↓ say which sign is better for the first. Own score, own NLL: "
    "of each task's adapter on its benchmark, mean over the four tasks. Rows with an operator are of merges of all "
    "sizes; MergeFail at τ = 0.9, NLL rise is that of the gold answers of the merged tasks.",
    "Without an operator the brackets are the 95 % Student-t interval of the differences of the training seeds, and "
    "the sign-flip p over them is exact. Sampling seeds of merges share adapters, so there the sign-flip p is too "
    "small, as is the bootstrap p (+1 correction), which takes instances as independent given the seed. With three "
    "seeds a sign-flip p cannot be below 0.25. Nothing is corrected for the number of rows.",
)


def build(evidence: Evidence) -> Table:
    """The table from the records of pipelines ``single`` and ``merge``."""
    return Table(
        name="differences",
        title=f"Differences. {evidence.experiment.title}",
        caption=caption(evidence),
        columns=(DIFFERENCE, ADAPTER, P_BOOTSTRAP, P_SEEDS),
        cells=tuple(cell for pair in PAIRS for cell in _pair(evidence, *pair)),
        notes=(
            mark_note("seeds or instances"),
            *NOTES,
            INTERVAL_NOTE,
            *unmeasured_notes(evidence.select("merge")),
            *parity_notes(evidence),
            *evidence.notes,
        ),
        commands=evidence.commands,
    )


def _pair(evidence: Evidence, ours: str, theirs: str) -> Iterator[Cell]:
    label = " − ".join(evidence.experiment.label(method) for method in (ours, theirs))
    for words, value in SINGLE.items():
        yield from _single(evidence, ours, theirs, value, row=f"{label}: {words}")
    for operator in evidence.experiment.keys("merge", "merge"):
        named = evidence.experiment.label(operator)
        for words, of in MERGED.items():
            yield from _merged(evidence, ours, theirs, operator, of, row=f"{label}: {named}, {words}")


def _single(
    evidence: Evidence, ours: str, theirs: str, value: Callable[[Record], float | None], *, row: str
) -> Iterator[Cell]:
    """Paired over the training seeds for which both methods have all their runs."""
    seeds = evidence.experiment.keys("single", "seed")
    differences, runs = [], []
    for seed in seeds:
        (left, right), ids = zip(*(_of_seed(evidence, method, seed, value) for method in (ours, theirs)), strict=True)
        if left is not None and right is not None:
            differences.append(left - right)
            runs += [run for those in ids for run in those]
    cell = partial(Cell, row=row, n=len(differences), n_expected=len(seeds), runs=tuple(runs))
    if not differences:
        yield cell(column=DIFFERENCE.label, value=None)
        return
    low, high = stats.t_interval(differences) if len(differences) > 1 else (None, None)
    summary = stats.summarize(differences)
    yield cell(column=DIFFERENCE.label, value=summary.mean, std=summary.std, ci_low=low, ci_high=high)
    yield cell(column=P_SEEDS.label, value=stats.sign_flip_p(differences))


def _of_seed(
    evidence: Evidence, method: str, seed: str, value: Callable[[Record], float | None]
) -> tuple[float | None, list[str]]:
    values, runs, _ = per_seed(evidence, "single", value, method=method, only=seed)
    return (values[0], runs) if values else (None, [])


def _merged(
    evidence: Evidence,
    ours: str,
    theirs: str,
    operator: str,
    value: Callable[[Instance], float | None],
    *,
    row: str,
) -> Iterator[Cell]:
    left, right = (evidence.select("merge", method=method, merge=operator) for method in (ours, theirs))
    for level, column in (("seed", DIFFERENCE), ("adapter", ADAPTER)):
        found = paired(left, right, Measure(column=column, value=value, level=level))
        cell = partial(Cell, row=row, n=len(found.differences), n_expected=found.expected, runs=found.runs)
        if not found.differences:
            yield cell(column=column.label, value=None)
            continue
        low, high = found.interval
        yield cell(column=column.label, value=float(np.mean(found.differences)), ci_low=low, ci_high=high)
        if level == "seed":
            yield cell(column=P_BOOTSTRAP.label, value=found.bootstrap_p)
            yield cell(column=P_SEEDS.label, value=found.sign_flip_p)
