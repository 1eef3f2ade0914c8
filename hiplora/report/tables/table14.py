"""Table 14: merge operators with and without a calibration in front, on one size-4 instance per sampling seed."""

from __future__ import annotations

from functools import partial

from hiplora.report.caption import caption, mark_note, parity_notes
from hiplora.report.cells import Cell, Column, Table
from hiplora.report.evidence import Evidence
from hiplora.report.instances import Instance, unjudged_notes
from hiplora.report.merges import INTERVAL_NOTE, Measure, measure_cell

SIZE = (4,)
MEASURES = (
    Measure(
        column=Column(label="Mean absolute drop (pp)", decimals=2, better="down", spread="ci"),
        value=Instance.drop,
        sizes=SIZE,
    ),
    Measure(
        column=Column(label="MergeFail (%)", better="down", spread="ci"),
        value=partial(Instance.failed, tau=0.9),
        sizes=SIZE,
    ),
    Measure(
        column=Column(label="NLL rise (nats/token)", decimals=3, better="down", spread="ci"),
        value=Instance.nll_rise,
        sizes=SIZE,
    ),
)
NOTES = (
    "One merge of four adapters per sampling seed, the same for every row. Mean absolute drop over the six metrics of "
    "Table 2; MergeFail at τ = 0.9; NLL rise: of the gold answers, after − before, mean over the four tasks.",
    "Rescale only and random directions are controls: Pico's rescaling without its coefficients, and its coefficients "
    "on random directions. What they reach is not due to Pico's choice of directions.",
    INTERVAL_NOTE,
)


def build(evidence: Evidence) -> Table:
    """Table 14 from the size-4 merges of every operator and calibration."""
    axes = [evidence.experiment.keys("merge", axis) for axis in ("method", "merge", "calibration")]
    rows = [(method, operator, calibration) for method in axes[0] for operator in axes[1] for calibration in axes[2]]
    return Table(
        name="table14",
        title=f"Table 14. {evidence.experiment.title}",
        caption=caption(evidence),
        columns=tuple(measure.column for measure in MEASURES),
        cells=tuple(cell for row in rows for cell in _row(evidence, row)),
        notes=(
            mark_note("instances"),
            *NOTES,
            *unjudged_notes(evidence.select("merge")),
            *parity_notes(evidence),
            *evidence.notes,
        ),
        commands=evidence.commands,
    )


def _row(evidence: Evidence, row: tuple[str, str, str]) -> list[Cell]:
    method, operator, calibration = row
    slots = evidence.select("merge", method=method, merge=operator, calibration=calibration)
    label = ", ".join(evidence.experiment.label(key) for key in row)
    return [measure_cell(slots, measure, row=label) for measure in MEASURES]
