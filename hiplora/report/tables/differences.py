"""Paired differences between methods: the basis of a claim of "better", unlike overlapping intervals."""

from collections.abc import Iterator
from itertools import product

from hiplora import stats
from hiplora.report.aggregate import per_instance, per_seed
from hiplora.report.evidence import Evidence
from hiplora.report.notes import table
from hiplora.report.table import Cell, Column, Table

PAIRS = [("hip", "lora"), ("hip", "proj"), ("proj", "lora")]  # the last: the effect of the projection alone
PAIRS += [("hip_absolute", "lora"), ("hip_absolute", "proj"), ("hip", "hip_absolute")]
DIFFERENCE = Column(label="difference", decimals=3, spread="ci")
ADAPTER = Column(label="difference, adapter-level", decimals=3, spread="ci")
P_BOOTSTRAP = Column(label="p, bootstrap", decimals=4, spread="none")
P_SEEDS = Column(label="p, sign-flip over seeds", decimals=2, spread="none")
SINGLE = {"own": "own score ↑ (pp)", "own_nll": "own NLL ↓ (nats/token)", "retain_pp": "Retain ↓ (pp)"}
SINGLE |= {"retain_nll": "Retain-NLL ↓ (nats/token)", "retain_text": "Retain-text ↓ (nats/token)"}
MERGED = {"drop": "mean absolute drop ↓ (pp)", "nll_rise": "NLL rise ↓ (nats/token)", "fail@0.9": "MergeFail ↓ (pp)"}
NOTES = (
    "A row is the first method minus the second. ↑ and ↓ say which sign is better for the first. Own score, own NLL: "
    "of each task's adapter on its own benchmark, mean over the four tasks. Rows with an operator are for merges of "
    "all sizes; MergeFail is at τ = 0.9, NLL rise is that of the gold answers of the merged tasks. Retain-NLL "
    "excludes word problems.",
    "Without an operator the brackets are the 95 % Student-t interval of the differences over training seeds, and the "
    "sign-flip p over them is exact. Sampling seeds of merges share adapters, so for merges the sign-flip p is too "
    "small, and so is the bootstrap p (+1 correction), which treats instances as independent given the seed. With "
    "three seeds a sign-flip p cannot be below 0.25. Nothing is corrected for the number of rows.",
)


def build(evidence: Evidence) -> Table:
    """One row per pair of methods and measure."""
    columns = (DIFFERENCE, ADAPTER, P_BOOTSTRAP, P_SEEDS)
    cells = [cell for pair in PAIRS for cell in _pair(evidence, *pair)]
    return table(evidence, "Differences", columns=columns, cells=cells, notes=NOTES)


def _pair(evidence: Evidence, ours: str, theirs: str) -> Iterator[Cell]:
    """The rows of a pair: over training seeds for which both methods have all runs, and over common instances.

    Merges have rows only for an operator with which the grid merges both methods.
    """
    label = " − ".join(evidence.experiment.label(method) for method in (ours, theirs))
    for measure, words in SINGLE.items():
        left, right = (per_seed(evidence, measure, method=method) for method in (ours, theirs))
        sample, row = left.minus(right), f"{label}: {words}"
        yield sample.mean_cell(row, DIFFERENCE)
        yield sample.cell(row, P_SEEDS, stats.sign_flip_p(sample.values) if sample.of else None)
    operators = [
        operator
        for operator in evidence.experiment.keys("merge", "merge")
        if all(evidence.select("merge", method=method, merge=operator) for method in (ours, theirs))
    ]
    for operator, (measure, words) in product(operators, MERGED.items()):
        left, right = (per_instance(evidence, measure, method=method, merge=operator) for method in (ours, theirs))
        sample, row = left.minus(right), f"{label}: {evidence.experiment.label(operator)}, {words}"
        mean = sample.mean if sample.of else None
        low, high = sample.interval("seed")
        yield sample.cell(row, DIFFERENCE, mean, ci_low=low, ci_high=high)
        bootstrap, flips = sample.p_values()
        yield from (sample.cell(row, P_BOOTSTRAP, bootstrap), sample.cell(row, P_SEEDS, flips))
        low, high = sample.interval("adapter")
        yield sample.cell(row, ADAPTER, mean, ci_low=low, ci_high=high)
