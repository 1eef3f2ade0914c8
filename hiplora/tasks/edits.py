"""Batches of edits: which facts are edited together, and the corpus that an adapter is trained on for a batch."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import ConfigDict, Field

from hiplora import editset
from hiplora.config import Bookkeeping, Natural, Options, Place, Positive, Seed
from hiplora.disk import typed_path
from hiplora.errors import UserError
from hiplora.hub import commit
from hiplora.tasks.base import Corpus
from hiplora.tasks.edit_items import COLUMNS, ITEMS, EditItem, Schema, Target, following, normalised, problem
from hiplora.tasks.files import Stamp, checked, placed_array, placed_jsonl, sha256, stamp
from hiplora.tasks.form import Pair, as_shown, encode_pair, end_of_shown

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from hiplora.packing.sequences import Encoded
    from hiplora.tasks.source import Source

Placed = Sequence[tuple[str, dict[str, Any]]]


class Edits(Options):
    """Options of the section ``edits``: a set of facts, and how it is cut into batches.

    The set is the project's own, a file (.jsonl, or .json with one array), or a data set on the Hub. ``draw`` seeds the
    order of its items; the first ``batch`` items of that order are the first batch, and so on. The set enters a
    result's identity by its digest.
    """

    model_config = ConfigDict(populate_by_name=True)
    group: ClassVar[str] = "edits"

    file: Annotated[str | None, Place]
    dataset: Annotated[str | None, Place]
    revision: Annotated[str | None, Place]
    split: Annotated[str, Place]
    layout: Annotated[Schema, Field(alias="schema")]  # a model has a schema of its own
    target: Target
    batch: Positive
    batches: Annotated[Positive, Bookkeeping]
    draw: Seed

    @classmethod
    def typed_as(cls, field: str) -> str:
        return "edits.schema" if field == "layout" else super().typed_as(field)

    def check_options(self) -> None:
        if self.file is not None and self.dataset is not None:
            raise UserError("edits.file and edits.dataset name two sets; leave one of them out.")
        if self.revision is not None and self.dataset is None:
            raise UserError(
                f"edits.revision={self.revision} needs a data set on the Hub; type edits.dataset=OWNER/NAME."
            )
        if self.shipped and self.layout != "native":
            raise UserError(
                f"edits.schema={self.layout} is for a set that is not the project's own; type edits.file=PATH or "
                "edits.dataset=OWNER/NAME."
            )
        if self.target != "alt" and self.layout != "zsre":
            raise UserError(f"edits.target={self.target} is for edits.schema=zsre; leave it out.")

    @property
    def shipped(self) -> bool:
        """Whether the set is the project's own."""
        return self.file is None and self.dataset is None

    def cut(self) -> tuple[EditBatch, ...]:
        """The first ``batches`` batches."""
        return tuple(EditBatch(edits=self, number=number) for number in range(self.batches))

    def reads(self) -> dict[str, str]:
        """What identifies the set: a name and a digest or commit. Raises UserError if it cannot be found."""
        if self.dataset is not None:
            revision = commit(self.dataset, self.revision, kind="dataset", field="edits.revision")
            return {f"{self.dataset}/{self.split}": revision}
        return {"edits": sha256(self._path)}

    def items(self) -> tuple[EditItem, ...]:
        """All facts of the set, in its own order. Raises UserError, which names the faulty line or row."""
        if self.dataset is not None:
            (revision,) = self.reads().values()
            return _online(self.dataset, revision, self.split, self.layout, self.target)
        return _filed(self._path, stamp(self._path), self.layout, self.target)

    @property
    def _path(self) -> Path:
        return editset.PATH if self.file is None else typed_path(self.file)


class EditBatch(Corpus):
    """The facts of batch ``number``, counted from 0, as a training corpus: each new answer and the end token."""

    name: ClassVar[str] = "edits"

    edits: Edits
    number: Natural

    def trained(self) -> dict[str, Any]:
        return {"name": self.name, **self.identity()}

    def training_reads(self, source: Source) -> dict[str, str]:
        return self.edits.reads()

    def check_training(self, source: Source) -> None:
        self.items()

    def encoded_examples(self, source: Source, tokenizer: PreTrainedTokenizerBase) -> list[Encoded]:
        from hiplora.packing.sequences import Encoded

        end = end_of_shown(tokenizer)
        pairs = (Pair(item.id, item.prompt, following(item.new)) for item in self.items())
        shown = (as_shown(tokenizer, pair) for pair in pairs)
        encoded = (encode_pair(tokenizer, pair.prompt, pair.answer) for pair in shown)
        return [Encoded(prompt, [*answer, *end]) for prompt, answer in encoded]

    def items(self) -> list[EditItem]:
        """The facts, in the order of the draw.

        Raises:
            UserError: the set has too few, one is not a valid edit, or two of them contradict each other.
        """
        every, size = self.edits.items(), self.edits.batch
        if len(every) < size * (self.number + 1):
            batches = f" in edits.batches={self.edits.batches}" if self.edits.batches > 1 else ""
            raise UserError(
                f"edits.batch={size}{batches} asks for more than the {len(every)} items of the set; type "
                f"edits.batch={max(1, len(every) // self.edits.batches)} or less."
            )
        drawn = sorted(every, key=lambda item: _key(self.edits.draw, item))
        found = drawn[size * self.number : size * (self.number + 1)]
        check(found)
        return found


def check(items: Sequence[EditItem]) -> None:
    """Refuse invalid edits, and two edits of one subject and relation to different answers. Raises UserError."""
    seen: dict[tuple[str, str], EditItem] = {}
    for item in items:
        if (wrong := problem(item)) is not None:
            raise UserError(f"{item.place} {wrong}; repair or remove it.")
        other = seen.setdefault((normalised(item.subject), item.relation), item)
        if normalised(other.new) != normalised(item.new):
            raise UserError(
                f"{other.place} and {item.place} edit {item.relation!r} of {item.subject!r} in one batch, to "
                f"{other.new!r} and to {item.new!r}; remove one of them, or type edits.draw=N for another draw."
            )


def _key(draw: int, item: EditItem) -> str:
    """A sort key that does not depend on the order of items in the file."""
    return hashlib.sha256(f"{draw}/{item.id}/{item.prompt}/{item.new}".encode()).hexdigest()


@cache
def _filed(path: Path, state: Stamp, layout: Schema, target: Target) -> tuple[EditItem, ...]:
    """The facts in a file; an unchanged file is read once."""
    read = placed_array if path.suffix == ".json" else placed_jsonl
    return _typed(read(path, COLUMNS[layout]), layout, target)


@cache
def _online(dataset: str, revision: str, split: str, layout: Schema, target: Target) -> tuple[EditItem, ...]:
    from datasets import load_dataset

    try:
        rows = load_dataset(dataset, split=split, revision=revision).to_list()
    except Exception as error:  # the client's errors and those of the file formats have no common base
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise UserError(
            f"edits.dataset={dataset} (split {split}) cannot be read ({reason.rstrip('.')}); connect to the Hub, name "
            "a split with edits.split=NAME, or give a file with edits.file=PATH."
        ) from error
    placed = [(f"{dataset}/{split}, row {number}", row) for number, row in enumerate(rows)]
    return _typed(checked(placed, COLUMNS[layout]), layout, target)


def _typed(placed: Placed, layout: Schema, target: Target) -> tuple[EditItem, ...]:
    return tuple(ITEMS[layout](row, place, target) for place, row in placed)
