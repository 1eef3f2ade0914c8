"""Table 13: LoRA and HiP-LoRA merged by addition and by TIES; sizes pooled, size 4 beside."""

from __future__ import annotations

from functools import partial

from hiplora.report.caption import caption, mark_note, paper_note, parity_notes
from hiplora.report.cells import Cell, Column, Table
from hiplora.report.evidence import Evidence
from hiplora.report.instances import SIZES, Instance, unjudged_notes
from hiplora.report.merges import INTERVAL_NOTE, Measure, measure_cell

TAU = 0.9
SCOPES = {"": (SIZES, "seed"), ", adapter-level": (SIZES, "adapter"), ", size 4": ((4,), "seed")}
NOTE = (
    "Mean absolute drop: mean of |After − Before| over the metrics of an instance's tasks, then over instances. "
    f"MergeFail at τ = {TAU}. Without a mark, all sizes are pooled under the hierarchical bootstrap."
)


def measures() -> dict[tuple[str, str], Measure]:
    """Drop and MergeFail in each scope, by (paper's key, scope)."""
    found = {}
    for words, (sizes, level) in SCOPES.items():
        drop = Column(label=f"Mean absolute drop{words} (pp)", decimals=2, better="down", spread="ci")
        fail = Column(label=f"MergeFail{words} (%)", better="down", spread="ci")
        found["drop_pp", words] = Measure(column=drop, value=Instance.drop, sizes=sizes, level=level)
        found["mergefail", words] = Measure(
            column=fail, value=partial(Instance.failed, tau=TAU), sizes=sizes, level=level
        )
    return found


def build(evidence: Evidence) -> Table:
    """Table 13 from the merges by addition and TIES."""
    paper = paper_note(evidence)
    points = [
        (m, o) for m in evidence.experiment.keys("merge", "method") for o in evidence.experiment.keys("merge", "merge")
    ]
    return Table(
        name="table13",
        title=f"Table 13. {evidence.experiment.title}",
        caption=caption(evidence),
        columns=tuple(measure.column for measure in measures().values()),
        cells=tuple(cell for method, operator in points for cell in _row(evidence, method, operator)),
        notes=(
            mark_note("instances"),
            NOTE,
            INTERVAL_NOTE,
            *unjudged_notes(evidence.select("merge")),
            *parity_notes(evidence),
            *evidence.notes,
            *([paper] if paper else []),
        ),
        commands=evidence.commands,
    )


def _row(evidence: Evidence, method: str, operator: str) -> list[Cell]:
    slots = evidence.select("merge", method=method, merge=operator)
    label = f"{evidence.experiment.label(method)}, {evidence.experiment.label(operator)}"
    return [
        measure_cell(
            slots,
            measure,
            row=label,
            paper=None if words else evidence.paper_value("table13", f"{method}_{operator}", key),
        )
        for (key, words), measure in measures().items()
    ]
