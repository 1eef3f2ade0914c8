"""Table 7: one adapter trained on several tasks in a row; its scores at the end, and what it forgot on the way."""

from typing import cast

from hiplora.pipelines.continual import Continual
from hiplora.report.aggregate import differences, rows
from hiplora.report.evidence import Evidence
from hiplora.report.lines import order
from hiplora.report.notes import METHODS, PAIRED, PAIRED_NOTE, table
from hiplora.report.table import Column, Table

COLUMNS = (
    Column(label="AvgAcc (%)", better="up", measure="avg_acc", paper="{method}/avg_acc"),
    Column(label="Forgetting (pp)", decimals=2, better="down", measure="forgetting", paper="{method}/forgetting"),
    Column(label="BWT (pp)", decimals=2, better="up", measure="bwt"),
    Column(label="FWT (pp)", decimals=2, better="up", measure="fwt"),
    Column(label="AvgNLL (nats/token)", decimals=3, better="down", measure="avg_nll"),
    Column(label="Forgetting-NLL (nats/token)", decimals=3, better="down", measure="forgetting_nll"),
    Column(label="BWT-NLL (nats/token)", decimals=3, better="up", measure="bwt_nll"),
    Column(label="FWT-NLL (nats/token)", decimals=3, better="up", measure="fwt_nll"),
    Column(label="Text (nats/token)", decimals=3, better="down", measure="text_rise"),
)
PAIRS = [("hip", "lora"), ("hip", "pissa"), ("hip", "proj"), ("proj", "lora")]
NOTES = (
    "AvgAcc: mean over the T tasks of the score after the last one. Forgetting: for every task but the last, the best "
    "score from its own stage to the last but one, minus the score at the end; mean over T − 1 tasks. BWT: score at "
    "the end minus score after the task's own stage; mean over T − 1 tasks. FWT: for every task but the first, score "
    "just before its own stage minus the bare backbone's; mean over T − 1 tasks. ± is the standard deviation (n − 1) "
    "over training seeds.",
    "Columns with -NLL: the same for the gold answers' log-likelihood, so Forgetting-NLL is a rise of the NLL, and "
    "BWT-NLL and FWT-NLL are gains; AvgNLL is the mean NLL. Text: rise of the cross-entropy on general text from the "
    "backbone to the end.",
    "Each task continues training the adapter of the task before, with the singular directions of the original "
    "weights. OSF's paper decomposes the weights again before each task; here it does not. O-LoRA's factors of "
    "earlier tasks are frozen.",
)


def build(evidence: Evidence) -> Table:
    """One row per method, then the differences of those with several seeds."""
    cells = [cell for group in evidence.experiment.groups for cell in rows(evidence, COLUMNS, group, "method")]
    columns, paired = differences(evidence, COLUMNS, "continual", PAIRS)
    notes = [*NOTES, PAIRED_NOTE, *line_notes(evidence)]
    sections = {METHODS: cells, PAIRED: paired}
    return table(evidence, "Table 7", columns=(*COLUMNS, *columns), sections=sections, notes=notes)


def line_notes(evidence: Evidence) -> list[str]:
    """Notes on the order of the tasks and on the optimizer state that each starts with."""
    found: dict[str, None] = {}
    for slot in evidence.slots:
        if order(slot):
            how = f"; optimizer: {cast(Continual, slot.config.pipeline).optimizer}" if slot.config is not None else ""
            found[f"Order of the tasks: {' → '.join(order(slot))}{how}."] = None
    return [*found]
