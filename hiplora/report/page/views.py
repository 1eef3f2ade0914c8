"""The page's view of one run: its settings, curve, scores before and after, and the model's answers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from hiplora.evaluation.definitions import PREFIX
from hiplora.evaluation.lm_tasks import Counted
from hiplora.report.marks import joined
from hiplora.report.page import drawing
from hiplora.report.page.bare import Bare, is_bare, likelihood_only
from hiplora.report.page.exhibits import Section, Shown
from hiplora.report.page.facts import Facts, facts, made_from, members
from hiplora.report.page.groups import Run
from hiplora.report.page.score_lines import Line, score_lines
from hiplora.report.page.settings import Defaults, Settings
from hiplora.report.result_tables import result_table
from hiplora.report.runs.fields import shown, split
from hiplora.report.runs.predictions import EDITS, Items, by_benchmark, flips, passed, right, telling
from hiplora.report.runs.prompts import Prompts
from hiplora.report.runs.shelf import Shelf
from hiplora.report.runs.text import headline
from hiplora.stages.record import Record, Sample
from hiplora.stages.results import Adapter, Edited, Result, Scores

TRAINING = {  # the numbers of a training to show, with their labels
    "steps": "steps", "tokens": "tokens", "epochs": "epochs", "final_loss": "final loss (nats/token)",
    "seconds": "seconds", "tokens_per_second": "tokens per second", "deployed_parameters": "parameters, deployed",
    "update_norm": "‖ΔW‖", "top_share": "share in the leading subspaces", "channel_share": "share of the channel",
}  # fmt: skip
LONG = 600  # characters of a prompt or an answer
SIZE = {"width": 420, "height": 150}


@dataclass(frozen=True)
class Answer:
    """One item: its prompt, right answer, the answers of backbone (``before``) and model; ``fate`` compares them."""

    benchmark: str
    id: str
    fate: str
    prompt: str
    right: str | None
    before: str | None
    given: str | None


@dataclass
class Part:
    """One record's part of a run's view."""

    record: Record
    anchor: str
    title: str
    marks: str
    typed: str  # the record as python -m hiplora.runs takes it
    settings: Settings  # without those of the run
    lines: list[Line] = field(default_factory=list)
    made_from: list[tuple[str, str]] = field(default_factory=list)  # anchor and name of records in other runs
    alone: bool = False
    unmatched: bool = False  # whether the backbone has no record to compare with
    numbers: list[tuple[str, str]] = field(default_factory=list)
    table: Section | None = None
    answers: list[Answer] = field(default_factory=list)
    counts: list[str] = field(default_factory=list)
    curve: drawing.Curve | None = None


@dataclass
class View:
    """One run on the page; ``backbone`` is the name of its backbone, "" for a run of no model.

    ``words`` are the settings of the run, and of the score that its numbers are from, as far as they differ from conf/.
    """

    run: Run
    backbone: str
    anchor: str
    title: str
    method: str
    task: str
    seed: str
    marks: str
    settings: Settings
    words: str
    facts: Facts | None
    parts: list[Part]


class Views:
    """Makes the views of runs. ``prompts`` read the text of items; Retain counts ``retain``, or the four benchmarks."""

    def __init__(self, shelf: Shelf, prompts: Prompts, defaults: Defaults, *, retain: Sequence[Counted] = ()) -> None:
        self._shelf, self._prompts, self._defaults, self._retain = shelf, prompts, defaults, retain
        self._items: dict[str, dict[str, Items]] = {}
        self._bare = Bare(shelf.records)
        self._counts = Counter(record.id for record in shelf.records)

    def of(self, run: Run) -> View:
        """The view of one run."""
        settings = self._defaults.of(run.head)
        every = settings.every
        method, task, seed = (
            shown(every[name]) if every.get(name) is not None else "" for name in ("method", "task", "seed")
        )
        parts = [self._part(run, record, settings) for record in run.records]
        best = [part.settings.words for part in parts if part.record is run.best]
        return View(
            run=run,
            backbone=self._bare.name(run.head),
            anchor=anchor(run.head),
            title=run.head.name,
            method=method,
            task=",".join(run.tasks) or task,
            seed=seed,
            marks=joined(self._shelf.marks(record) for record in run.records),
            settings=settings,
            words=", ".join(filter(None, [settings.words, *best])),
            facts=facts(run, self._bare, self._retain),
            parts=parts,
        )

    def _part(self, run: Run, record: Record, settings: Settings) -> Part:
        own = self._defaults.of(record).without(settings)
        typed = record.id if self._counts[record.id] == 1 else f"{record.id}.{record.where}"
        part = Part(record, anchor(record), _title(record), self._shelf.marks(record), typed, own)
        part.made_from = [
            (anchor(each), each.name) for each in made_from(self._shelf, record) if each not in run.records
        ]
        result = record.result
        if isinstance(result, Adapter):
            found = {**dict(result), **result.measures}
            part.numbers = [(words, _short(found[name])) for name, words in TRAINING.items() if name in found]
            part.curve = _curve(result)
        elif isinstance(result, Scores):
            base = self._bare.of(record)
            alone = members(self._shelf, record)
            lines = score_lines(result, base, alone)
            if likelihood_only(record):
                lines = (line for line in lines if line.after)
            part.alone, part.lines = bool(alone), list(lines)
            part.unmatched = base is None and not is_bare(record)
            if record is run.best or run.train is None or result.lm_eval:
                part.counts, part.answers = self._answers(record, base, own=run.task)
        else:
            plain = {name: value for name, value in dict(result).items() if isinstance(value, int | float)}
            found = {**plain, **getattr(result, "measures", {})}
            part.numbers = [(TRAINING.get(name, name), _short(value)) for name, value in found.items()]
            part.table = _table(result)
        if isinstance(result, Edited):
            part.counts, part.answers = self._answers(record, self._bare.of(record), own=EDITS)
        if is_bare(record):  # what others are compared with is its own score
            part.lines = [replace(line, before=line.after, after="") for line in part.lines]
            part.answers = [replace(answer, before=answer.given, given=None) for answer in part.answers]
        return part

    def _answers(self, record: Record, base: Record | None, *, own: str | None) -> tuple[list[str], list[Answer]]:
        """Counts of learned and lost items by benchmark, and example items, with more of the run's own benchmark."""
        items = by_benchmark(self._shelf.readable(record))
        before = self._base_items(base)
        counts, found = [], []
        for name in sorted(items, key=lambda name: name != own):
            old = before.get(name)
            if old is not None:
                change = flips(old, items[name])
                judged = change.other < len(items[name])
                counts += [] if not judged else [f"{name}: {len(change.gained)} learned, {len(change.lost)} lost"]
            most = 4 if name == own or old is None else 2
            examples = telling(items[name], old, 1)[:most]
            if not examples and (name == own or name.startswith(PREFIX)):
                examples = [*items[name]][:2]  # of a task whose answers are not right or wrong
            for id in examples:
                found.append(self._answer(record, items[name][id], base, None if old is None else old.get(id)))
        return counts, found

    def _base_items(self, base: Record | None) -> dict[str, Items]:
        if base is None:
            return {}
        if base.stem not in self._items:
            self._items[base.stem] = by_benchmark(self._shelf.readable(base))
        return self._items[base.stem]

    def _answer(self, record: Record, sample: Sample, base: Record | None, old: Sample | None) -> Answer:
        now = self._prompts.show(record, sample)
        then = self._prompts.show(base, old).given if base is not None and old is not None else None
        given = None if now.given is None else _cut(now.given) + passed(sample)
        return Answer(
            str(sample.get("benchmark", EDITS)), str(sample.get("id")), _fate(sample, old),
            prompt=_cut(now.prompt) if now.prompt is not None else f"({now.reason})",
            right=None if now.right is None else _cut(now.right),
            before=None if then is None or old is None else _cut(then) + passed(old),
            given=given,
        )  # fmt: skip


def _table(result: Result) -> Section | None:
    """The table of a result other than scores and trainings."""
    if (found := result_table(result)) is None:
        return None
    header, rows = found
    return Section(
        "", [Shown(text) for text in header], [(row, [Shown(text) for text in cells]) for row, cells in rows]
    )


def anchor(record: Record) -> str:
    """The HTML anchor of a record."""
    return f"r-{record.id}-{record.where}"


def _title(record: Record) -> str:
    if isinstance(record.result, Adapter):
        return "Training"
    if isinstance(record.result, Scores):
        scale = record.asked.get("of", {}).get("scale")
        return f"Scores on {split(record)}" + (f", {scale:g} ΔW" if scale is not None else "")
    return record.kind.capitalize()


def _curve(result: Adapter) -> drawing.Curve | None:
    points = [(entry["step"], entry["loss"]) for entry in result.curve if "step" in entry and "loss" in entry]
    if len(points) < 2:
        return None
    steps, losses = zip(*points, strict=True)
    return drawing.curve(steps, losses, **SIZE)


def _fate(sample: Sample, old: Sample | None) -> str:
    """What became of an item; its NLL if its answer is not right or wrong."""
    if right(sample) is None:
        return f"NLL {sample['nll']:.3f}" if "nll" in sample else "not judged"
    if old is None or right(old) is None:
        return "right" if right(sample) else "wrong"
    if right(sample):
        return "kept" if right(old) else "learned"
    return "lost" if right(old) else "still wrong"


def _short(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else shown(value)


def _cut(text: str) -> str:
    """A text, shortened in the middle if it is long, with control characters made visible."""
    short = text if len(text) <= LONG else f"{text[: LONG // 2]} […] {text[-LONG // 2 :]}"
    return "".join(c if c >= " " or c in "\n\t" else chr(0x2400 + ord(c)) for c in short).strip("\n")


def summary_of(records: Iterable[Record]) -> str:
    """The headline numbers of a run other than an adapter's."""
    return "; ".join(filter(None, dict.fromkeys(headline(record.result) for record in records)))
