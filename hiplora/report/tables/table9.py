"""Table 9: one adapter trained on several tasks in a row, its scores on every benchmark after each stage."""

from collections.abc import Iterator, Sequence

from hiplora.report.aggregate import Sample
from hiplora.report.frame import Evidence
from hiplora.report.lines import lines, methods, order, per_line, tasks
from hiplora.report.notes import table
from hiplora.report.table import Cell, Column, Table
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
    benchmarks = dict.fromkeys([*tasks(evidence), *ORDER])
    columns = [
        *(Column(label=f"{SCORES.get(name, name)} (%)", better="up", measure=name) for name in benchmarks),
        *(
            Column(label=f"{NAMES.get(name, name)}, NLL", decimals=3, better="down", measure=f"{name}/nll")
            for name in benchmarks
        ),
        Column(label="Text (nats/token)", decimals=3, better="down", measure="text/nll"),
    ]
    cells = [*_base_row(evidence, columns)]
    for method in methods(evidence):
        line = next((found for n in lines(evidence, method=method) if (found := order(evidence.slots[n]))), ())
        for stage, task in enumerate(line, start=1):
            row = f"{evidence.experiment.label(method)}, {stage}: {NAMES.get(task, task)}"
            samples = ((per_line(evidence, f"{stage}/{each.measure}", method=method), each) for each in columns)
            cells += [sample.mean(row, column, "t") for sample, column in samples]
    return table(evidence, "Table 9", columns=columns, cells=cells, notes=[NOTE, *line_notes(evidence)])


def _base_row(evidence: Evidence, columns: Sequence[Column]) -> Iterator[Cell]:
    """The bare backbone: a single measurement, which all lines share."""
    for column in columns:
        shared = {each.runs: each for each in per_line(evidence, f"0/{column.measure}").of.values()}
        sample = Sample(shared, 1)
        yield sample.cell(BASE, column, float(sample.values.mean()) if sample.of else None)
