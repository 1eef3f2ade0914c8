"""Table 8: a batch of facts edited with one adapter: what has taken hold, and what else has changed."""

from collections.abc import Iterator
from pathlib import Path

from hiplora.evaluation.edit_measures import ALL
from hiplora.report.edits import UNEDITED, EditRuns
from hiplora.report.frame import Evidence
from hiplora.report.notes import table
from hiplora.report.table import Column, Table
from hiplora.stages.edit import Edit

COLUMNS = (
    Column(label="Success (%)", better="up", measure="success", paper="{method}/success"),
    Column(label="generated (%)", better="up", measure="generated"),
    Column(label="new likelier (%)", better="up", measure="preferred"),
    Column(label="Success where old was believed (%)", better="up", measure="believed"),
    Column(label="Paraphrases, success (%)", better="up", measure="paraphrase_success"),
    Column(label="Paraphrases, generated (%)", better="up", measure="paraphrase_generated"),
    Column(label="Neighbours, own answer likelier (%)", better="up", measure="neighbourhood"),
    Column(label="Locality (pp)", decimals=2, better="down", measure="locality", paper="{method}/locality_pp"),
    Column(label="Accuracy, signed (pp)", decimals=2, better="up", measure="change"),
    Column(label="Flips (%)", better="down", measure="flips"),
    Column(label="Accuracy behind an edit, signed (pp)", decimals=2, better="up", measure="front_change"),
    Column(label="Flips behind an edit (%)", better="down", measure="front_flips"),
    Column(label="Probes, log p(right) (nats/token)", decimals=3, better="up", measure="probe_log_p_gold"),
    Column(label="Probes, log p(edited) (nats/token)", decimals=3, measure="probe_log_p_new"),
)
CHANGES = ("locality", "change", "flips", "front_change", "front_flips")  # the backbone has none
ITEMS = (
    "Generated: the greedy completion, up to a line's or the text's end and at most two tokens longer than the "
    "longer of its two answers, is the new answer once case, articles and punctuation are taken off both. New "
    "likelier: log p(new) > log p(old), each summed over the answer's tokens (forced). Success: one or the other. "
    "Where old was believed: the items of which the bare backbone's greedy completion begins with the old answer, or "
    "to whose old answer it gives the higher sum. Paraphrases: the same of other wordings, mean over an item's. "
    "Neighbours: the same relation of subjects that no edit touches; the sum of their own answer against that of the "
    "edit's new one (forced). ± is the standard deviation (n − 1) over training seeds."
)
PROBES = (
    "Locality: on unrelated prompts of held-out benchmarks, the change of accuracy from the bare backbone, absolute; "
    "beside it the signed change, and flips: prompts of which right has become wrong or wrong right. Behind an edit: "
    "the same with the sentence of one of the edits on a line in front of each, backbone and adapter alike. log p: "
    "mean log-probability per token of the benchmark's right answer, and of an edit's new answer in its place "
    "(forced)."
)


def build(evidence: Evidence) -> Table:
    """The bare backbone, then one row per method."""
    runs = EditRuns(evidence)
    cells = [*runs.bare(UNEDITED, COLUMNS, ALL, changes=CHANGES)]
    for method in runs.methods:
        cells += runs.cells(evidence.experiment.label(method), COLUMNS, ALL, method)
    notes = [ITEMS, PROBES, *batch_notes(evidence)]
    return table(evidence, "Table 8", columns=COLUMNS, cells=cells, notes=notes)


def batch_notes(evidence: Evidence) -> Iterator[str]:
    """How many facts were edited at a time, of which set, and how many probes there were."""
    stages = [entry.stage for slot in evidence.slots for entry in slot.entries]
    for stage in stages:
        if isinstance(stage, Edit) and not stage.of.stands_on():
            edits = stage.batches[0].edits
            several = f", mean over {len(stage.batches)} batches" if len(stage.batches) > 1 else ""
            target = f", target {edits.target}" if edits.layout == "zsre" else ""
            source = edits.dataset or (Path(edits.file).name if edits.file else "EditSet-1K")
            probes = ", ".join(f"{count} of {name}" for name, count in stage.probes.items())
            yield (
                f"Edits: {edits.batch} at a time{several}, of {source} (schema {edits.layout}{target}). Probes: "
                f"{probes} ({stage.evaluation.splits})."
            )
            return
