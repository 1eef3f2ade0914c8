"""Table 2: four adapters added, each task before and after.

A record of pipeline ``merge`` is one method, operator and sampling seed. Beside what every record has::

    labels   {method, merge, calibration, seed (the sampling seed), scale, model, data}
    metrics  {"planned": {"2": 3, "3": 3, "4": 3},                      instances per size that the run is to have
              "instances": [{"size": 4, "index": 0,
                             "adapters": {"mmlu": 42, "code": 2024, …},  training seed of each merged task's adapter
                             "runs":     {"mmlu": id, …},                their records of pipeline single
                             "before":   {"mmlu": {"acc", "nll"}, "code": {"pass@1", "pass@5", "pass@10", "nll"}, …},
                             "after":    {the same tasks, scored on the merged model},
                             "text":     {"nll"}}, …]}                   general text, on the merged model

Scores are fractions, None where not measured; "before" holds each adapter's score on its own task. Whether an
instance fails is worked out here from before and after, for any τ.
"""

from __future__ import annotations

from collections.abc import Callable

from hiplora.report.caption import caption, mark_note, paper_note, parity_notes
from hiplora.report.cells import Cell, Column, Table
from hiplora.report.evidence import Evidence
from hiplora.report.instances import Instance, unmeasured_notes
from hiplora.report.merges import INTERVAL_NOTE, Measure, measure_cell

COLUMNS = {
    ("mmlu", "acc"): Column(label="MMLU (%)", spread="ci"),
    ("scienceqa", "acc"): Column(label="ScienceQA (%)", spread="ci"),
    ("gsm8k", "acc"): Column(label="GSM8K (%)", spread="ci"),
    ("code", "pass@1"): Column(label="pass@1 (%)", spread="ci"),
    ("code", "pass@5"): Column(label="pass@5 (%)", spread="ci"),
    ("code", "pass@10"): Column(label="pass@10 (%)", spread="ci"),
}
DROP = Column(label="Mean absolute drop (pp)", decimals=2, better="down", spread="ci")
SIZE = (4,)
NOTES = (
    "Before: each adapter alone on its own task. After: the one model in which all four are added. Δ = After − Before, "
    "in pp. Mean absolute drop: mean of |Δ| over the six columns of an instance, then over instances.",
    INTERVAL_NOTE,
)


def build(evidence: Evidence) -> Table:
    """Table 2 from the size-4 merges by addition."""
    cells = [cell for method in evidence.experiment.keys("merge", "method") for cell in _method(evidence, method)]
    paper = paper_note(evidence)
    return Table(
        name="table2",
        title=f"Table 2. {evidence.experiment.title}",
        caption=caption(evidence),
        columns=(*COLUMNS.values(), DROP),
        cells=tuple(cells),
        notes=(
            mark_note("instances"),
            *NOTES,
            *unmeasured_notes(evidence.select("merge")),
            *parity_notes(evidence),
            *evidence.notes,
            *([paper] if paper else []),
        ),
        commands=evidence.commands,
    )


def _method(evidence: Evidence, method: str) -> list[Cell]:
    slots = evidence.select("merge", method=method)
    label = evidence.experiment.label(method)
    kinds = {"before": _score("before"), "after": _score("after"), "Δ": _delta}
    cells = [
        measure_cell(slots, Measure(column=column, value=value(task, name), sizes=SIZE), row=f"{label}, {kind}")
        for kind, value in kinds.items()
        for (task, name), column in COLUMNS.items()
    ]
    paper = evidence.paper_value("table2", "mean_abs_drop_pp", method)
    drop = Measure(column=DROP, value=Instance.drop, sizes=SIZE)
    return [*cells, measure_cell(slots, drop, row=f"{label}, Δ", paper=paper)]


Value = Callable[[Instance], float | None]


def _score(side: str) -> Callable[[str, str], Value]:
    def of(task: str, name: str) -> Value:
        def value(instance: Instance) -> float | None:
            score = getattr(instance, side)[task].get(name)
            return None if score is None else 100 * score

        return value

    return of


def _delta(task: str, name: str) -> Value:
    return lambda instance: instance.deltas().get((task, name))
