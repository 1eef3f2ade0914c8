"""Table 1: each method fine-tuned on one task at a time, and what it forgets of the others."""

from collections.abc import Iterator, Sequence

from hiplora.report.aggregate import bare, differences, rows
from hiplora.report.evidence import Evidence
from hiplora.report.measures import scores
from hiplora.report.notes import METHODS, PAIRED, PAIRED_NOTE, table
from hiplora.report.table import Column, Table
from hiplora.tasks import primary

HEADLINES = {"mmlu": "MMLU", "gsm8k": "GSM8K", "code": "pass@1", "scienceqa": "ScienceQA"}
FORGOTTEN = (
    Column(label="Retain (pp)", decimals=2, better="down", measure="retain_pp", paper="retain_pp/{method}"),
    Column(label="Retain-NLL (nats/token)", decimals=3, better="down", measure="retain_nll"),
    Column(label="Word problems' NLL (nats/token)", decimals=3, measure="retain_styled"),
    Column(label="Retain-text (nats/token)", decimals=3, better="down", measure="retain_text"),
)
BASE = "Backbone, no adapter"
NOTES = (
    "Each benchmark's column shows the adapters trained on that task, scored on it; ± is the standard deviation "
    "(n − 1) over training seeds. The CSV has 95 % Student-t intervals over the same seeds (wide, with three of them).",
    "Retain: points lost on the other three benchmarks, mean over a seed's adapters, one for each benchmark column; "
    "signed: 0 is the backbone, below 0 is a gain. Retain-NLL: rise of the gold answers' negative log-likelihood, "
    "which also moves where a score is coarse or at its floor. It excludes word problems, whose NLL the style of "
    "answers moves by up to a nat either way; their rise has its own column, mean over the adapters of other tasks. "
    "Retain-text: rise of the cross-entropy on general text.",
)


def build(evidence: Evidence, more: Sequence[str] = (), pairs: Sequence[tuple[str, str]] = ()) -> Table:
    """One row per method: each task's adapter on its own benchmark, then what was forgotten; ``more`` are notes.

    With ``pairs`` of methods, a second section holds their differences.
    """
    own = _own_scores(evidence)
    columns = [*own, *FORGOTTEN]
    cells = [bare(evidence, BASE, column, f"bare/{_task(evidence, column.point['task'])}") for column in own]
    cells += rows(evidence, columns, "single", "method")
    title = f"Table {evidence.experiment.name.removeprefix('table')}"
    notes = [*NOTES, *more, *([PAIRED_NOTE] if pairs else []), *_blank_notes(evidence)]
    if not pairs:
        return table(evidence, title, columns=columns, cells=cells, notes=notes)
    apart, paired = differences(evidence, columns, "single", pairs)
    sections = {METHODS: cells, PAIRED: paired}
    return table(evidence, title, columns=[*columns, *apart], sections=sections, notes=notes)


def _own_scores(evidence: Evidence) -> list[Column]:
    """A column for each task of the grid: first the benchmarks, then others, such as a task of one's own."""
    tasks = evidence.experiment.keys("single", "task")
    names = {task: name for task, name in HEADLINES.items() if task in tasks}
    names |= {task: evidence.experiment.label(task) for task in tasks if task not in names}
    return [
        Column(label=f"{name} (%)", better="up", measure="own", point={"task": task}, paper=f"{task}/{{method}}")
        for task, name in names.items()
    ]


def _task(evidence: Evidence, key: str) -> str:
    """The task behind a key of the axis ``task``; the key itself if no stage is known."""
    return next((slot.task for slot in evidence.slots if slot.run.point.get("task") == key and slot.task), key)


def _blank_notes(evidence: Evidence) -> Iterator[str]:
    entries = [entry for slot in evidence.slots for entry in slot.entries if entry.role == "adapter"]
    found = [scores(entry).get("code", {}) for entry in entries]
    code = [metrics[primary("code")] for metrics in found if primary("code") in metrics]
    if blank := code.count(None):
        yield (
            "Runs without pass@1, as code execution was off or only likelihoods were asked for: "
            f"{blank} of {len(code)}. They count neither in its "
            "column nor in Retain; their Retain-NLL and Retain-text are valid."
        )
