"""MergeFail: the share of merges in which some task falls below τ times its score before the merge."""

from __future__ import annotations

from functools import partial

from hiplora.report.caption import caption, mark_note, parity_notes
from hiplora.report.cells import Cell, Column, Table
from hiplora.report.evidence import Evidence
from hiplora.report.instances import SIZES, Instance, unjudged_notes
from hiplora.report.merges import INTERVAL_NOTE, Measure, measure_cell

TAUS = (0.85, 0.9, 0.95)
LEVELS = {"seed": "", "adapter": ", adapter-level"}


def _columns() -> dict[tuple[float, str], Column]:
    return {
        (tau, level): Column(label=f"τ = {tau}{words} (%)", better="down", spread="ci")
        for level, words in LEVELS.items()
        for tau in TAUS
    }


def build(evidence: Evidence) -> Table:
    """MergeFail by method, size and τ, under both bootstraps."""
    cells = [cell for method in evidence.experiment.keys("merge", "method") for cell in _method(evidence, method)]
    return Table(
        name="mergefail",
        title=f"MergeFail. {evidence.experiment.title}",
        caption=caption(evidence),
        columns=tuple(_columns().values()),
        cells=tuple(cells),
        notes=(
            mark_note("instances"),
            INTERVAL_NOTE,
            *unjudged_notes(evidence.select("merge")),
            *parity_notes(evidence),
            *evidence.notes,
        ),
        commands=evidence.commands,
    )


def _method(evidence: Evidence, method: str) -> list[Cell]:
    slots = evidence.select("merge", method=method)
    groups = {**{f"{size} adapters": (size,) for size in SIZES}, "all sizes": SIZES}
    return [
        measure_cell(
            slots,
            Measure(column=column, value=partial(Instance.failed, tau=tau), sizes=sizes, level=level),
            row=f"{evidence.experiment.label(method)}, {words}",
        )
        for words, sizes in groups.items()
        for (tau, level), column in _columns().items()
    ]
