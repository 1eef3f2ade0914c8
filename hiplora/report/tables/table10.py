"""Table 10: the measures of Table 8 by category of the edited facts."""

from hiplora.report.evidence import Evidence
from hiplora.report.notes import table
from hiplora.report.table import Column, Table
from hiplora.report.tables.table8 import ITEMS, batch_notes, edit_rows
from hiplora.stages.results import Edited
from hiplora.tasks.edit_items import CATEGORIES

COLUMNS = (
    Column(label="Success (%)", better="up", measure="success"),
    Column(label="generated (%)", better="up", measure="generated"),
    Column(label="new likelier (%)", better="up", measure="preferred"),
    Column(label="Success where old was believed (%)", better="up", measure="believed"),
    Column(label="Old believed before (%)", measure="believing"),
    Column(label="Paraphrases, success (%)", better="up", measure="paraphrase_success"),
    Column(label="Paraphrases, generated (%)", better="up", measure="paraphrase_generated"),
    Column(label="Neighbours, own answer likelier (%)", better="up", measure="neighbourhood"),
    Column(label="log p(new) (nats/token)", decimals=3, better="up", measure="log_p_new"),
    Column(label="log p(old) (nats/token)", decimals=3, measure="log_p_old"),
    Column(label="tokens of new", decimals=2, measure="tokens_new"),
    Column(label="tokens of old", decimals=2, measure="tokens_old"),
    Column(label="Accuracy behind an edit, signed (pp)", decimals=2, better="up", measure="front_change"),
    Column(label="Flips behind an edit (%)", better="down", measure="front_flips"),
    Column(label="Probes, log p(edited) (nats/token)", decimals=3, measure="probe_log_p_new"),
)
NOTE = (
    "log p: mean log-probability per token after the edit's own prompt, mean over items (forced). Behind an edit: the "
    "unrelated prompts that have the sentence of an edit of this category in front. Probes, log p(edited): those for "
    "which an edit of this category gives the new answer that is scored instead of the right one. Locality without an "
    "edit in front has no category; see Table 8."
)


def build(evidence: Evidence) -> Table:
    """For every category a row of the bare backbone, then one row per method."""
    edited = [record.result for _, record in evidence.recorded if isinstance(record.result, Edited)]
    there = dict.fromkeys(category for each in edited for batch in each.batches for category in batch.categories)
    label = evidence.experiment.label
    cells = [cell for each in there or CATEGORIES for cell in edit_rows(evidence, COLUMNS, each, f"{label(each)}: ")]
    notes = [ITEMS, NOTE, *batch_notes(evidence)]
    return table(evidence, "Table 10", columns=COLUMNS, cells=cells, notes=notes)
