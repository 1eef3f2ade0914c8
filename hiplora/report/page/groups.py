"""Records grouped into runs: a training or an adapter folder with what was measured on it; other records alone."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from hiplora.report.runs.fields import split
from hiplora.report.runs.shelf import Shelf
from hiplora.stages.record import Record
from hiplora.stages.results import Adapter, Drifted, Frontier, Scores


@dataclass(frozen=True)
class Run:
    """One run: its ``records`` in the order in which they were made, and its ``train``, which comes first, or None."""

    train: Record | None
    records: tuple[Record, ...]

    @property
    def head(self) -> Record:
        """The record that names the run."""
        return self.records[0]

    @cached_property
    def kind(self) -> str:
        """adapter, backbone or merged; otherwise the kind of its record."""
        return "adapter" if self.train is not None else str(self.head.asked.get("of", {}).get("kind", self.head.kind))

    @property
    def tasks(self) -> tuple[str, ...]:
        """The tasks that the adapter was trained on, in this order; empty without a training."""
        return () if self.train is None else tuple(_line(self.train.asked))

    @property
    def task(self) -> str | None:
        """The last of ``tasks``; None without a training."""
        return self.tasks[-1] if self.tasks else None

    @cached_property
    def best(self) -> Record | None:
        """The most informative record of the unscaled adapter or model: scores on test, on validation, a frontier.

        Of several scores, it is the one on most items.
        """

        def rank(record: Record) -> tuple[int, bool, float, int]:
            benchmarks = record.result.benchmarks if isinstance(record.result, Scores) else {}
            items = sum(scores.get("n") or 0 for scores in benchmarks.values())
            return (isinstance(record.result, Scores), split(record) == "test", items, len(benchmarks))

        found = [each for each in self.records if isinstance(each.result, Frontier) or scored(each) in UNSCALED]
        return max(found, key=rank, default=None)

    def scored_on(self, tasks: Collection[str]) -> Iterator[Record]:
        """The best scores, and those that add tasks of lm-eval to them, as far as they have all these tasks."""
        for each in self.records:
            scores = each.result.lm_eval.keys() if isinstance(each.result, Scores) else None
            if scores is not None and self.best and self.best.id in (each.id, *each.needs) and {*tasks} <= scores:
                yield each


UNSCALED = ("adapter", "backbone", "merged", "folder", "merged_folders")


def scored(record: Record) -> str | None:
    """The kind of source that a record scores, such as adapter or scaled; None if it does not hold scores."""
    return record.asked.get("of", {}).get("kind") if isinstance(record.result, Scores) else None


def _line(training: Mapping[str, Any]) -> list[str]:
    """The names of the tasks of a training, as it was asked, behind those of the training that it continues."""
    parent, name = training.get("parent"), training.get("task", {}).get("name")
    return [*(_line(parent) if parent else []), *([name] if name else [])]


def grouped(shelf: Shelf) -> list[Run]:
    """The runs in the order in which they were made; every record is in one of them."""
    found: dict[tuple[str, str], list[Record]] = {}
    for record in shelf.records:
        home = _home(shelf, record)
        found.setdefault((home.id, home.where), []).append(record)
    runs = []
    for key, records in found.items():
        head, *more = sorted(records, key=lambda record: (record.id, record.where) != key)
        runs.append(Run(head if isinstance(head.result, Adapter) else None, (head, *more)))
    return sorted(runs, key=lambda run: (run.head.started, run.head.name, run.head.id))


def _home(shelf: Shelf, record: Record) -> Record:
    """The record that a record belongs to: a training, the score to which lm-eval's were added, else itself."""
    needs = [need for id in record.needs if (need := shelf.need(record, id)) is not None]
    plain = next((need for need in needs if isinstance(need.result, Scores)), None)
    if isinstance(record.result, Scores) and plain is not None:
        return _home(shelf, plain)
    if isinstance(record.result, Drifted) and not record.needs:
        return _scored_folder(shelf, record) or record
    alone = isinstance(record.result, Adapter) or len(record.needs) != 1 or not needs
    return needs[0] if not alone and isinstance(needs[0].result, Adapter) else record


def _scored_folder(shelf: Shelf, drift: Record) -> Record | None:
    """The first score of the adapter folder whose drift was measured, on the same backbone."""

    def of(record: Record) -> tuple[object, ...]:
        reads = record.asked.get("reads", {})
        return (record.where, record.asked.get("of"), reads.get("backbone"), reads.get("adapter"))

    return next((each for each in shelf.records if scored(each) == "folder" and of(each) == of(drift)), None)
