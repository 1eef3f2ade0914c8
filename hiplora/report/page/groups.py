"""Records grouped into runs: a training with everything measured on its adapter; any other record alone."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from hiplora.report.runs.shelf import Shelf
from hiplora.stages.record import Record
from hiplora.stages.results import Adapter, Frontier, Scores


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
    def task(self) -> str | None:
        """The task that the adapter was trained on; None without a training."""
        return None if self.train is None else self.train.asked.get("task", {}).get("name")

    @cached_property
    def best(self) -> Record | None:
        """The most informative record of the unscaled adapter or model: scores on test, on validation, a frontier."""

        def rank(record: Record) -> tuple[int, bool, int]:
            result = record.result
            size = len(result.benchmarks) if isinstance(result, Scores) else 0
            return (isinstance(result, Scores), split(record) == "test", size)

        found = [each for each in self.records if isinstance(each.result, Frontier) or scored(each) in UNSCALED]
        return max(found, key=rank, default=None)


UNSCALED = ("adapter", "backbone", "merged", "folder")


def scored(record: Record) -> str | None:
    """The kind of source that a record scores, such as adapter or scaled; None if it does not hold scores."""
    return record.asked.get("of", {}).get("kind") if isinstance(record.result, Scores) else None


def split(record: Record) -> str:
    """The split that was scored: test or validation."""
    return record.asked.get("evaluation", {}).get("splits", "test")


def grouped(shelf: Shelf) -> list[Run]:
    """The runs in the order in which they were made; every record is in one of them."""
    found: dict[tuple[str, str], list[Record]] = {}
    for record in sorted(shelf.records, key=lambda record: not isinstance(record.result, Adapter)):
        key = (record.id, record.where)
        needs = [need for id in record.needs if (need := shelf.need(record, id)) is not None]
        alone = isinstance(record.result, Adapter) or len(record.needs) != 1 or not needs
        if not alone and isinstance(needs[0].result, Adapter):
            key = (needs[0].id, needs[0].where)
        found.setdefault(key, []).append(record)
    runs = [Run(each[0] if isinstance(each[0].result, Adapter) else None, tuple(each)) for each in found.values()]
    return sorted(runs, key=lambda run: (run.head.started, run.head.name, run.head.id))
