"""Table 9: one adapter trained on several tasks in a row, its scores on every benchmark after each stage."""

from dataclasses import replace

from hiplora.report.aggregate import bare, cell
from hiplora.report.evidence import Evidence
from hiplora.report.lines import order, tasks
from hiplora.report.notes import table
from hiplora.report.table import Column, Table
from hiplora.report.tables.table7 import line_notes
from hiplora.tasks import ORDER

NAMES = {"mmlu": "MMLU", "scienceqa": "ScienceQA", "gsm8k": "GSM8K"}
SCORES = {**NAMES, "code": "pass@1"}
BASE = "Backbone, no adapter"
NOTE = (
    "A row is the adapter after that many stages, named by the task trained last; mean ± standard deviation (n − 1) "
    "over training seeds. Scores in percent; NLL of the same items' gold answers; cross-entropy on general text."
)


def build(evidence: Evidence) -> Table:
    """The backbone, then one row per method and stage."""
    benchmarks = dict.fromkeys([*tasks(evidence.slots), *ORDER])
    columns = [
        *(Column(label=f"{SCORES.get(name, name)} (%)", better="up", measure=name) for name in benchmarks),
        *(
            Column(label=f"{NAMES.get(name, name)}, NLL", decimals=3, better="down", measure=f"{name}/nll")
            for name in benchmarks
        ),
        Column(label="Text (nats/token)", decimals=3, better="down", measure="text/nll"),
    ]
    cells = [bare(evidence, BASE, column, f"0/{column.measure}") for column in columns]
    for group, method in dict.fromkeys((run.group, run.point["method"]) for run in evidence.experiment.runs):
        slots = [evidence.slots[number] for number in evidence.select(group, method=method)]
        line = next((found for slot in slots if (found := order(slot))), ())
        for stage, task in enumerate(line, start=1):
            row = f"{evidence.experiment.label(method)}, {stage}: {NAMES.get(task, task)}"
            after = (replace(column, measure=f"{stage}/{column.measure}") for column in columns)
            cells += [cell(evidence, row, column, group, method=method) for column in after]
    return table(evidence, "Table 9", columns=columns, cells=cells, notes=[NOTE, *line_notes(evidence)])
