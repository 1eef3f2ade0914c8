"""The backbone behind a record, and the record of the bare backbone that its scores are compared with."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from typing import Any

from hiplora.config import Generation, Options, digest
from hiplora.evaluation.options import Evaluation
from hiplora.stages.record import Record
from hiplora.stages.results import Edited, Frontier, Scores
from hiplora.tasks import TASKS, task_class

ADAPTER = "adapter"  # a folder's own files among those that a record reads: adapter, adapter 1, …
SAME = ("version", "evaluation", "own_items", "other_items")  # fields that are equal where scores are comparable
NAMED = "backbone-"  # the beginning of the name of a backbone's records
UNNAMED = ("folder", "hub")  # names in older records of a backbone whose user gave none
SHORT = 12  # characters of a digest that stands for a name


class Bare:
    """The records of the bare backbones among ``records``."""

    def __init__(self, records: Iterable[Record]) -> None:
        self._scored: dict[str, list[Record]] = {}
        self._names: dict[str, str] = {}
        for record in records:
            if not is_bare(record):
                continue
            files, name = _model(record)[1], record.name.removeprefix(NAMED)
            if self._names.get(files, UNNAMED[0]) in UNNAMED:
                self._names[files] = name
            if isinstance(record.result, Scores | Frontier | Edited):
                self._scored.setdefault(_frame(_as_likelihood(record)), []).append(record)

    def of(self, record: Record) -> Record | None:
        """The backbone's record that a score, a frontier or edits are compared with.

        None if there is no comparable one, or if ``record`` is of a bare backbone itself.
        """
        if is_bare(record):
            return None
        near = self._scored.get(_frame(_as_likelihood(record)), [])
        found = [each for each in near if comparable(each, record)]
        return min(found, key=lambda each: len(_files(each)), default=None)

    def name(self, record: Record) -> str:
        """The name of the backbone behind a record; "" if there is none.

        A digest stands for a name that is missing, and beside one that two backbones have.
        """
        files = _model(record)[1]
        short = files if "@" in files else files[:SHORT]
        name = self._names.get(files)
        if name is None:
            return short
        return name if list(self._names.values()).count(name) == 1 else f"{name} {short}"


def comparable(one: Record, other: Record) -> bool:
    """Whether ``one`` scored everything that ``other`` scored, in the same way and on the same backbone.

    Backbone, device, arithmetic and evaluation are the same, and so are the options and files of each benchmark. How
    text is generated counts only if ``other`` has generated any.
    """
    if likelihood_only(other):
        one, other = _as_likelihood(one), _as_likelihood(other)
    asked, tasks = one.asked.get("benchmarks", []), other.asked.get("lm_tasks")
    every = all(each in asked for each in other.asked.get("benchmarks", []))
    every = every and tasks in (None, one.asked.get("lm_tasks"))
    return every and _frame(one) == _frame(other) and _files(other).items() <= _files(one).items()


def comparable_on(task: str, one: Record, other: Record) -> bool:
    """Whether both scored this benchmark in the same way and on the same backbone, whatever else they scored.

    Options count as in :func:`comparable`. The data that both read is the same.
    """
    if likelihood_only(other):
        one, other = _as_likelihood(one), _as_likelihood(other)
    mine, theirs = (
        [each for each in record.asked.get("benchmarks", []) if each.get("name") == task] for record in (one, other)
    )
    read, also = _files(one), _files(other)
    both = read.keys() & also.keys()
    same = bool(both) and all(read[name] == also[name] for name in both)
    return same and bool(mine) and mine == theirs and _frame(one) == _frame(other)


def likelihood_only(record: Record) -> bool:
    """Whether a record scored only the gold answers' likelihoods, and generated nothing."""
    evaluation = record.asked.get("evaluation")
    return isinstance(evaluation, Mapping) and bool(evaluation.get("likelihood_only"))


def plotted_with(record: Record, task: str) -> str:
    """A key that is equal for records whose numbers on one task, and on general text, can be in one plot."""
    own = [each for each in record.asked.get("benchmarks", []) if each.get("name") == task]
    return digest([_frame(record), own, data_of(record, task)])


def data_of(record: Record, task: str) -> dict[str, str]:
    """The data that a record's numbers on one task, and on general text, were measured on: name → digest.

    Data on the Hub has any name, so all that no other benchmark has given its name belongs to the task.
    """
    names = (each.get("name") for each in record.asked.get("benchmarks", []))
    others = tuple(f"{name}/" for name in names if name != task)
    return {name: file for name, file in _files(record).items() if not name.startswith(others)}


def is_bare(record: Record) -> bool:
    """Whether a record is of a bare backbone."""
    of = record.asked.get("of")
    return isinstance(of, Mapping) and of.get("kind") == "backbone"


def _model(record: Record) -> tuple[str, str]:
    """The options of the backbone behind a record and the digest of its files, as text; empty without a backbone."""
    for asked in _inside(record.asked):
        if "model" in asked:
            read = (each.get("reads", {}).get("backbone") for each in (asked, record.asked))
            return digest(asked["model"]), next(filter(None, read), "")
    return "", ""


def _inside(asked: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """What was asked, and inside it what it was asked of; of several adapters the first."""
    yield asked
    for key in ("of", "train", "adapters"):
        inner = asked.get(key)
        first = inner[0] if isinstance(inner, list) and inner else inner
        if isinstance(first, Mapping):
            yield from _inside(first)


def _frame(record: Record) -> str:
    edits = [batch.get("edits") for batch in record.asked.get("batches", [])][:1]  # all batches have the same options
    return digest([record.kind, record.where, *_model(record), [record.asked.get(name) for name in SAME], edits])


def _as_likelihood(record: Record) -> Record:
    """The record as if it had scored likelihoods alone: without fields that say how text is generated."""
    asked = dict(record.asked)
    if isinstance(asked.get("evaluation"), Mapping):
        asked["evaluation"] = _without_generation(asked["evaluation"])
    asked["benchmarks"] = [_without_generation(each) for each in asked.get("benchmarks", [])]
    return record.model_copy(update={"asked": asked})


def _without_generation(options: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if name not in _generation()}


@cache
def _generation() -> frozenset[str]:
    """Names of the fields of an evaluation or a benchmark that change no likelihood."""
    owners: tuple[type[Options], ...] = (Evaluation, *map(task_class, TASKS))
    written = {name for owner in owners for name, field in owner.model_fields.items() if Generation in field.metadata}
    return frozenset({"likelihood_only", *written})


def _files(record: Record) -> dict[str, str]:
    """The data that a record was measured on: name → digest."""
    own = ("backbone", ADAPTER)
    return {name: file for name, file in record.asked.get("reads", {}).items() if name.partition(" ")[0] not in own}
