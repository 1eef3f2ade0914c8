"""Table 8: a batch of facts edited with one adapter: which edits hold, and what else has changed."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from hiplora.evaluation.edit_measures import ALL
from hiplora.report.aggregate import bare, cell, differences
from hiplora.report.evidence import Evidence
from hiplora.report.notes import METHODS, PAIRED, PAIRED_NOTE, table
from hiplora.report.table import Cell, Column, Table
from hiplora.report.tables.table7 import PAIRS
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
UNEDITED = "Backbone, no edit"
CHANGES = ("locality", "change", "flips", "front_change", "front_flips")  # the backbone has none
ITEMS = (
    "Generated: the greedy completion, which ends at a line break or the end token and is at most two tokens longer "
    "than the longer of the two answers, equals the new answer, ignoring case, articles and punctuation. New "
    "likelier: log p(new) > log p(old), each summed over the answer's tokens (forced). Success: at least one of the "
    "two. Where old was believed: items for which the bare backbone's greedy completion begins with the old answer, "
    "or which give the old answer the higher sum. Paraphrases: the same for other wordings, mean over an item's "
    "paraphrases. Neighbours: the same relation for subjects that no edit touches; their own answer's sum against "
    "that of the edit's new answer (forced). ± is the standard deviation (n − 1) over training seeds."
)
PROBES = (
    "Locality: on unrelated prompts of held-out benchmarks (probes), the absolute change of accuracy from the bare "
    "backbone's; beside it the signed change, and flips: prompts whose answer became right or wrong. Behind an edit: "
    "the same with the sentence of one of the edits on a line before each prompt, for backbone and adapter. log p: "
    "mean log-probability per token of the benchmark's right answer, and of an edit's new answer instead (forced)."
)


def build(evidence: Evidence) -> Table:
    """The bare backbone, then one row per method, then the differences between methods."""
    of_all = [replace(column, measure=f"{ALL}/{column.measure}") for column in COLUMNS]
    columns, paired = differences(evidence, of_all, "edit", PAIRS)
    sections = {METHODS: edit_rows(evidence, COLUMNS, ALL), PAIRED: paired}
    notes = [ITEMS, PROBES, PAIRED_NOTE, *batch_notes(evidence)]
    return table(evidence, "Table 8", columns=(*COLUMNS, *columns), sections=sections, notes=notes)


def edit_rows(evidence: Evidence, columns: Sequence[Column], category: str, prefix: str = "") -> list[Cell]:
    """The rows of one category of facts: the bare backbone, which has no changes, then each method."""
    of_category = [replace(column, measure=f"{category}/{column.measure}") for column in columns]
    unchanged = [column for column in of_category if column.measure.partition("/")[2] not in CHANGES]
    cells = [bare(evidence, f"{prefix}{UNEDITED}", column, f"bare/{column.measure}") for column in unchanged]
    for method in evidence.experiment.keys("edit", "method"):
        row = f"{prefix}{evidence.experiment.label(method)}"
        cells += [cell(evidence, row, column, "edit", method=method) for column in of_category]
    return cells


def batch_notes(evidence: Evidence) -> Iterator[str]:
    """A note on how many facts were edited at a time, from which set, and on the number of probes."""
    stages = [entry.stage for slot in evidence.slots for entry in slot.entries]
    for stage in stages:
        if isinstance(stage, Edit) and not stage.of.made_from():
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
