"""Table 1: each method fine-tuned on one task at a time, and what that costs elsewhere.

An adapter's own benchmark is its column; Retain is the mean over a seed's four adapters, then over seeds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from hiplora import stats
from hiplora.report.caption import caption, mark_note, paper_note, parity_notes
from hiplora.report.cells import Cell, Column, Table
from hiplora.report.evidence import Evidence, Record, metric, per_seed, seed_cell
from hiplora.tasks import primary

BENCHMARKS = {  # the paper's, by their headline scores
    "mmlu": Column(label="MMLU (%)", better="up"),
    "gsm8k": Column(label="GSM8K (%)", better="up"),
    "code": Column(label="pass@1 (%)", better="up"),
    "scienceqa": Column(label="ScienceQA (%)", better="up"),
}
RETAIN = {
    "retain_pp": Column(label="Retain (pp)", decimals=2, better="down"),
    "retain_nll": Column(label="Retain-NLL (nats/token)", decimals=3, better="down"),
    "retain_text": Column(label="Retain-text (nats/token)", decimals=3, better="down"),
}
BASE = "Backbone, no adapter"
NOTES = (
    "Each benchmark's column holds the adapters trained on that task, scored on it; ± is the standard deviation "
    "(n − 1) over training seeds. The CSV has Student-t intervals at 95 % over the same seeds (wide, with "
    "three of them).",
    "Retain: points lost on the other three benchmarks, mean over the four adapters of a seed, signed; 0 is the "
    "backbone, below 0 is a gain. Retain-NLL: the same of the gold answer's negative log-likelihood, which moves "
    "where a score is at its floor or coarse. Retain-text: rise of the cross-entropy on general text.",
)


def score(record: Record, task: str, model: str = "adapted") -> float | None:
    """A benchmark's headline score in percent."""
    value = metric(record, model, task, primary(task))
    return None if value is None else 100 * value


def build(evidence: Evidence) -> Table:
    """Table 1 from the records of pipeline ``single``."""
    return single_task_table(evidence, number="1", retain=tuple(RETAIN))


def single_task_table(evidence: Evidence, *, number: str, retain: Sequence[str]) -> Table:
    """One row per method: own benchmark of each task's adapter, then the given measures of forgetting."""
    methods = evidence.experiment.keys("single", "method")
    cells = [*_base_row(evidence), *(cell for method in methods for cell in _row(evidence, method, retain))]
    notes = [
        mark_note("seeds"),
        *NOTES,
        *_base_notes(evidence),
        *_blank_notes(evidence),
        *parity_notes(evidence),
        *evidence.notes,
    ]
    paper = paper_note(evidence)
    return Table(
        name=evidence.experiment.name,
        title=f"Table {number}. {evidence.experiment.title}",
        caption=caption(evidence),
        columns=(*BENCHMARKS.values(), *(RETAIN[key] for key in retain)),
        cells=tuple(cells),
        notes=(*notes, *([paper] if paper else [])),
        commands=evidence.commands,
    )


def _row(evidence: Evidence, method: str, retain: Sequence[str]) -> list[Cell]:
    def cell(column: Column, value: Callable[[Record], float | None], paper: float | None, **point: str) -> Cell:
        values, runs, expected = per_seed(evidence, "single", value, method=method, **point)
        row = evidence.experiment.label(method)
        return seed_cell(values, row=row, column=column.label, expected=expected, runs=runs, paper=paper)

    name = evidence.experiment.name
    own = [
        cell(column, partial(score, task=task), evidence.paper_value(name, task, method), task=task)
        for task, column in BENCHMARKS.items()
    ]
    lost = [cell(RETAIN[key], partial(retained, key=key), evidence.paper_value(name, key, method)) for key in retain]
    return [*own, *lost]


def retained(record: Record, key: str) -> float | None:
    """One measure of forgetting of a record, None where it has none."""
    return metric(record, "retain", key)


def _base_scores(evidence: Evidence, task: str) -> list[float]:
    """The distinct scores of the unadapted backbone: it is evaluated once, so one unless it was redone."""
    found = [score(record, task, "base") for record in evidence.records]
    return sorted({value for value in found if value is not None})


def _base_row(evidence: Evidence) -> list[Cell]:
    cells = []
    for task, column in BENCHMARKS.items():
        values = _base_scores(evidence, task)
        if not values:
            cells.append(Cell(row=BASE, column=column.label, value=None, n=0, n_expected=1))
            continue
        summary = stats.summarize(values)
        runs = tuple(sorted({record["needs"]["backbone"] for record in evidence.records}))
        cells.append(
            Cell(
                row=BASE,
                column=column.label,
                value=summary.mean,
                std=summary.std,
                n=summary.n,
                n_expected=1,
                runs=runs,
            )
        )
    return cells


def _base_notes(evidence: Evidence) -> list[str]:
    several = [task for task in BENCHMARKS if len(_base_scores(evidence, task)) > 1]
    if not several:
        return []
    return [
        f"The backbone has more than one score on {', '.join(several)}: it was evaluated anew between these runs, on "
        "another machine or after a change of code. Its row is their mean ± std; each Retain is against the "
        "score that its own record carries."
    ]


def _blank_notes(evidence: Evidence) -> list[str]:
    blank = [record for record in evidence.records if score(record, "code") is None]
    if not blank:
        return []
    return [
        f"Runs without pass@1, as code execution was off: {len(blank)} of {len(evidence.records)}. They count neither "
        "in that column nor in Retain; their Retain-NLL and Retain-text stand."
    ]
