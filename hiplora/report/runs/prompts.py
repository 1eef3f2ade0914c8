"""Prompts and right answers of the items behind predictions.

Records never hold a benchmark's text. It is read from the data, and shown only if it matches the hash in the record.
That of lm-eval's tasks is read from the file that their scoring has left on this machine.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hiplora.command_line import hydra_text
from hiplora.compose import compose_cached
from hiplora.conf_dir import CONF_DIR, check_conf
from hiplora.errors import UserError
from hiplora.evaluation.definitions import PREFIX
from hiplora.evaluation.item_texts import Texts, key, load
from hiplora.report.find import NATURAL
from hiplora.report.runs.fields import split
from hiplora.stages.record import Record, Sample
from hiplora.stages.results import Scores
from hiplora.tasks import TASKS
from hiplora.tasks.base import Task
from hiplora.tasks.source import Source

FORM = ("scoring", "template", "target")  # options that change a prompt's text
OTHER = "the text of this item differs from the data here"
ABSENT = (
    "the text of lm-eval's items is kept where they are scored, and not in {folder}: type outputs_dir=DIR behind this "
    "command if they were scored with it, or score them again with force=true"
)


@dataclass(frozen=True)
class Shown:
    """One prediction to show; if ``prompt`` and ``right`` are None, ``reason`` says why they are not shown."""

    prompt: str | None
    right: str | None
    given: str | None
    reason: str = ""


class Prompts:
    """Reads the benchmarks of one kind of data, each split once; ``words`` are overrides such as ``data=mini``."""

    def __init__(self, words: Sequence[str]) -> None:
        config = compose_cached(words)
        self._tasks = {task.name: task for task in config.benchmarks}
        self._source = Source(config.data)
        self._edits = config.edits
        self._folder = config.places.texts
        self._theirs: dict[str | None, Texts | None] = {}  # of lm-eval's tasks, by the name of the file
        self._read: dict[Any, tuple[Task, dict[str, Any]] | UserError] = {}

    def show(self, record: Record, sample: Sample) -> Shown:
        """A prediction with its prompt and its right answer."""
        if str(sample.get("benchmark")).startswith(PREFIX):
            return self._of_lm_eval(record, sample)
        if "prompts" in sample:
            return self._of_edit(record, sample)
        try:
            task, items = self._items(record, str(sample.get("benchmark")))
        except UserError as error:
            return Shown(None, None, _written(sample), str(error))
        item = items.get(str(sample.get("id")))
        try:
            if item is None or not _same(task.prompt(item), sample):
                return Shown(None, None, _written(sample), OTHER)
            return Shown(task.prompt(item), task.answer(item), task.given(item, sample))
        except UserError as error:  # a conversation, whose text depends on the tokenizer
            return Shown(None, None, _written(sample), str(error))

    def _of_lm_eval(self, record: Record, sample: Sample) -> Shown:
        """A prediction on an item of lm-eval's."""
        name = record.result.texts if isinstance(record.result, Scores) else None
        if name not in self._theirs:
            self._theirs[name] = None if name is None else load(self._folder, name)
        item = (self._theirs[name] or {}).get(key(str(sample["benchmark"]), sample))
        if item is None:
            return Shown(None, None, _written(sample), ABSENT.format(folder=self._folder))
        chosen = _likeliest(sample)
        named = item.options[chosen] if chosen is not None and chosen < len(item.options) else None
        return Shown(item.prompt, item.right, _written(sample) if named is None else named)

    def _of_edit(self, record: Record, sample: Sample) -> Shown:
        """A prediction on an edit: its own prompt, the new answer, and what was written."""
        written = sample["prompts"][0]["text"]
        asked = record.asked["batches"][0]["edits"]
        edits = self._edits.but(layout=asked["layout"], target=asked["target"])
        try:
            read = edits.reads().items()
            items = {item.id: item for item in edits.items()}
        except UserError as error:
            return Shown(None, None, written, str(error))
        item = items.get(str(sample.get("id")))
        if item is None or not read <= record.asked["reads"].items():
            return Shown(None, None, written, OTHER)
        return Shown(item.prompt, item.new, written)

    def _items(self, record: Record, name: str) -> tuple[Task, dict[str, Any]]:
        """A benchmark with a record's options, and its items by id. Raises UserError if they are not available."""
        options: Mapping[str, Any] = next(
            (each for each in record.asked.get("benchmarks", []) if each.get("name") == name), {}
        )
        form = {key: options[key] for key in FORM if key in options}
        key = (name, split(record), *form.items())
        if key not in self._read:
            try:
                self._read[key] = self._task(name, split(record), form)
            except UserError as error:
                self._read[key] = error
        if isinstance(found := self._read[key], UserError):
            raise found
        return found

    def _task(self, name: str, split: str, form: Mapping[str, Any]) -> tuple[Task, dict[str, Any]]:
        if name not in self._tasks and name in TASKS:
            raise UserError(
                f"conf/ does not name the data of {name}: type task={name} task.file=… behind this command, as for the "
                "run, and its text is read"
            )
        if name not in self._tasks:
            raise UserError("this item is from no benchmark that this checkout has, so its text is not read")
        task = self._tasks[name].but(**form)
        return task, {str(item["id"]): item for item in task.test_items(self._source, split)}


def _same(prompt: str, sample: Sample) -> bool:
    kept = sample.get("prompt_hash")
    return isinstance(kept, str) and hashlib.sha256(prompt.encode()).hexdigest().startswith(kept)


def _written(sample: Sample) -> str | None:
    """What was written, as far as a prediction says it without its item."""
    text = sample.get("text", next(iter(sample.get("completions", [])), None))
    text = f"{text} → {sample['read']}" if "read" in sample else text  # what a filter has read in it
    chosen = sample.get("chosen", _likeliest(sample))
    return f"option {chosen + 1}" if text is None and chosen is not None else text


def _likeliest(sample: Sample) -> int | None:
    """The likeliest of several options, by the log-probabilities of a sample of an lm-eval task."""
    options = sample.get("log_probs", [])
    return max(range(len(options)), key=options.__getitem__) if len(options) > 1 else None


def data_words(folder: Path, words: Sequence[str] = ()) -> list[str]:
    """The overrides with which runs write into a folder ``results/<data>``, as far as they differ from conf/.

    Raises:
        UserError: the folder's name is not a kind of data, or with the overrides runs write into another folder.
    """
    check_conf()
    known = sorted(path.stem for path in (CONF_DIR / "data").glob("*.yaml"))
    folder = folder.resolve()
    if folder.name not in known:
        raise UserError(f"{folder} is not named after a kind of data; choose a folder named {' or '.join(known)}.")
    plain = compose_cached([])
    asked = {"results_dir": str(folder.parent), "data": folder.name, "scale": NATURAL[folder.name]}
    there = {"results_dir": str(plain.places.results.resolve().parent), "data": plain.data.name, "scale": plain.scale}
    typed = {word.partition("=")[0] for word in words}
    needed = [f"{key}={hydra_text(value)}" for key, value in asked.items() if key not in typed and value != there[key]]
    found = compose_cached([*needed, *words]).places.results.resolve()
    if found != folder:
        raise UserError(
            f"With {' '.join(words)} runs write into {found}, not into --results {folder}; type that folder, or leave "
            "out what changes it."
        )
    return [*needed, *words]
