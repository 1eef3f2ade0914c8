"""The records of one results folder, with their marks, needs and files, found by the beginning of an id."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

from hiplora.errors import UserError
from hiplora.report.marks import marks_of
from hiplora.report.runs.fields import Fields, fields
from hiplora.stages.record import Record, Sample
from hiplora.stages.store import Places, Store

FIRST = "python -m hiplora.run method=hip task=gsm8k seed=42"


class Shelf:
    """The tracked records in ``results/<data>``, in the order in which they were made.

    Raises:
        UserError: there is no such folder, or it holds several folders of results.
    """

    def __init__(self, folder: Path) -> None:
        _check(folder)
        self.folder = folder
        self.store = Store(Places(outputs=Path("outputs"), results=folder), local=False)
        self.unread: dict[str, None] = {}  # a sentence for each file of predictions that cannot be read
        self.records = sorted(self.store.tracked, key=lambda record: (record.started, record.name, record.id))

    @property
    def broken(self) -> list[str]:
        """A sentence for each file that is not a record, and for predictions that were asked for and not readable."""
        return [*self.store.tracked.broken, *self.unread]

    @cached_property
    def fields(self) -> list[Fields]:
        """The fields of every record, in the same order."""
        return [fields(record, self.marks(record)) for record in self.records]

    def need(self, record: Record, id: str) -> Record | None:
        """The record with this id that ``record`` was made from; None if it is missing."""
        return self.store.tracked.get((id, record.where))

    def marks(self, record: Record) -> str:
        """† ‡ * § as in tables."""
        return marks_of(record, self.store)

    def samples(self, record: Record) -> list[Sample]:
        """The predictions behind a record. Raises UserError if they cannot be read."""
        return self.store.tracked.samples(record)

    def readable(self, record: Record) -> list[Sample]:
        """The predictions behind a record; none, and a sentence in ``unread``, if they cannot be read."""
        try:
            return self.samples(record)
        except UserError as error:
            self.unread[str(error)] = None
            return []

    def path(self, record: Record) -> Path:
        """The file of a record."""
        return self.store.tracked.folder / record.kind / f"{record.stem}.json"

    def find(self, typed: str) -> Record:
        """The record with this id or beginning of an id (``3f2a``), with ``where`` if needed (``3f2a….cpu-float32``).

        Raises:
            UserError: no record matches, or several do.
        """
        id, _, where = typed.partition(".")
        of = [each for each in self.records if each.id.startswith(id) and (not where or each.where == where)]
        found = of or [each for each in self.records if each.stem == typed]
        if len(found) == 1:
            return found[0]
        if not found:
            raise UserError(f"{self.folder} has no record {typed}; python -m hiplora.runs lists the records.")
        several = ", ".join(f"{each.id}.{each.where} ({each.kind} {each.name})" for each in found[:6])
        raise UserError(f"{typed} can be {several}; type more of it.")


def _check(folder: Path) -> None:
    if not folder.is_dir():
        raise UserError(
            f"{folder} is not a folder; type --results DIR, the folder results/<data> of a checkout (results/mini)."
        )
    inside = sorted(path.parent for path in folder.glob("*/records"))
    if inside and not (folder / "records").is_dir():
        several = ", which are not comparable" if len(inside) > 1 else " in a folder of their own"
        raise UserError(
            f"{folder} holds the results of {', '.join(path.name for path in inside)}{several}; type "
            f"--results {inside[0]}."
        )
