"""Reads the benchmarks' data from three origins in one schema.

``data=mini`` writes the project's own benchmarks into the cache and reads them like any folder; ``data=local`` reads
``<root>/<dataset>/<split>.jsonl``; ``data=hub`` loads repositories by id, or from a mirror, ``<root>/<owner>/<name>``,
if ``data.root`` names one. Code outside this module does not depend on the origin.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, TypeAlias

from hiplora.config import Options, Place
from hiplora.disk import default_cache_dir, typed_path
from hiplora.errors import UserError
from hiplora.hub import commit
from hiplora.tasks.files import sha256, tree_sha256
from hiplora.tasks.loading import answered, file_split, hub_split
from hiplora.tasks.origins import ORIGINS, TEXTS, Origin, Part, held_out

if TYPE_CHECKING:
    from datasets import Dataset


class Data(Options):
    """Options of the group ``data``: where benchmarks come from.

    Results are identified by the digests of the files read (:meth:`Source.reads`); ``name`` is also the folder of
    their records under ``results/``.
    """

    group: ClassVar[str] = "data"

    name: Annotated[Literal["mini", "local", "hub"], Place]
    root: Annotated[str | None, Place]
    revisions: Annotated[dict[str, str | None], Place]

    def check_options(self) -> None:
        if self.root is not None and not self.root.strip():
            raise UserError("data.root= is empty; leave it out, or type data.root=DIR.")
        if self.root is not None and self.name == "mini":
            raise UserError(
                f"data=mini does not read data.root={self.root}, because the project writes this data itself; leave "
                "it out, or type data=local or data=hub with it."
            )
        pinned = [name for name, revision in self.revisions.items() if revision]
        if pinned and self.name != "hub":
            raise UserError(
                f"data.revisions.{pinned[0]} pins a repository on the Hub, and data={self.name} loads none from "
                "there; leave it out, or type data=hub."
            )


Seen: TypeAlias = "dict[tuple[object, ...], tuple[str, str]]"
_SEEN: ContextVar[Seen | None] = ContextVar("seen", default=None)


@contextmanager
def looked_up_once() -> Iterator[None]:
    """Inside the block, the digest of a split's files is looked up once; for plans and tables only.

    A table asks about a thousand stages for the digests of the same few files. Code that makes stages must not use
    this, because it must see files change.
    """
    token = _SEEN.set({})
    try:
        yield
    finally:
        _SEEN.reset(token)


class Source:
    """Reads the data sets of one :class:`Data`.

    Args:
        data: origin (``mini``, ``local`` or ``hub``) and root folder.
        cache_dir: where the mini-benchmarks are written; the project's cache by default.
    """

    def __init__(self, data: Data, *, cache_dir: Path | None = None) -> None:
        if data.name == "local" and data.root is None:
            raise UserError("data=local needs a folder; type data.root=DIR, where DIR holds gsm8k/, mmlu/ and so on.")
        pinnable = [name for name, origin in ORIGINS.items() if origin.repository is not None]
        if unknown := sorted(set(data.revisions) - set(pinnable)):
            raise UserError(f"data.revisions names {', '.join(unknown)}; choose among {', '.join(pinnable)}.")
        self.data = data
        self._cache_dir = cache_dir
        self._mini: Path | None = None

    def load(self, dataset: str, split: str) -> Dataset:
        """One split in the Hub's schema, with ``id`` (``<split>/<row>``) as its last column.

        If a data set has no validation split, ``validation`` is a hashed 5 % of its training split, and ``train`` is
        the rest; for MMLU it is ``dev``.

        Raises:
            UserError: a folder, file or column is missing, or a line is broken.
        """
        part = self._part(dataset, split)
        rows = self._read(dataset, part.split)
        column = self._origin(dataset).held_out_by
        if part.held_out is None or column is None:
            return rows
        return rows.select([row for row, text in enumerate(rows[column]) if held_out(text) == part.held_out])

    def reads(self, *wanted: tuple[str, str]) -> dict[str, str]:
        """The identity of the data of these (data set, split) pairs: name → digest.

        In a folder the name is that of the file with the rows read (``gsm8k/train without its held-out 5 %``), and the
        digest is the file's SHA-256. On the Hub the name is repository, subset and split, and the digest is the commit;
        in a mirror it is the SHA-256 of the repository's files. The path of a folder does not enter. Loads neither
        torch nor datasets.

        Raises:
            UserError: a folder or file is missing, or the commit of a revision cannot be found out.
        """
        return dict(sorted(self._identified(dataset, split) for dataset, split in wanted))

    def _identified(self, dataset: str, split: str) -> tuple[str, str]:
        """Name and digest of the data of one split."""
        seen = _SEEN.get()
        if seen is None:
            return self._look_up(dataset, split)
        asked = (self.data.name, self.data.root, *self.data.revisions.items(), self._cache_dir, dataset, split)
        if asked not in seen:
            seen[asked] = self._look_up(dataset, split)
        return seen[asked]

    def check(self, *wanted: tuple[str, str]) -> None:
        """Read the files of these (data set, split) pairs, so that a broken line is reported before a run starts.

        :meth:`load` does not read them again. A data set on the Hub is only looked up, in the cache or on the Hub;
        nothing but its description is downloaded.

        Raises:
            UserError: a folder, file or column is missing, a line is broken, or a repository is out of reach.
        """
        for dataset, split in dict.fromkeys(wanted):
            if self._folder_root(dataset) is not None:
                self._read(dataset, self._part(dataset, split).split)
        for dataset in dict.fromkeys(dataset for dataset, _ in wanted):
            if self._folder_root(dataset) is None:
                self._describe(dataset)

    def has(self, dataset: str, split: str) -> bool:
        """Whether the origin has a split of a data set that not every origin has."""
        root = self._folder_root(dataset)
        if root is None:
            return self._origin(dataset).repository is not None
        return (root / dataset / f"{split}.jsonl").is_file()

    def texts(self, split: str) -> list[str]:
        """Names of the general texts: ``text``, which every origin has, and ``text_sampled`` if the origin has it."""
        return [name for name in TEXTS if name == TEXTS[0] or self.has(name, split)]

    def origin_of(self, dataset: str) -> str:
        """Where a data set is read from, for people: a folder or ``repository@commit``."""
        if self._folder_root(dataset) is not None:
            return str(self._folder(dataset))
        return "@".join([self._repository(self._origin(dataset)), *self._revision(dataset).values()])

    def _look_up(self, dataset: str, split: str) -> tuple[str, str]:
        origin = self._origin(dataset)
        if self._folder_root(dataset) is not None:
            part = self._part(dataset, split)
            path = self._file(dataset, part.split)
            borrowed = self.data.name == "local" and path.parents[1] == self._mini
            return f"{dataset}/{part}{' of the mini data' if borrowed else ''}", sha256(path)
        # The commit determines which splits exist, and so where validation comes from: no need to look them up.
        name = "/".join(filter(None, (origin.hub_id, origin.subset, split)))
        if self.data.root is None:
            return name, self._revision(dataset)["revision"]
        folder = Path(self._repository(origin))
        if not folder.is_dir():
            raise UserError(f"{folder} is missing; put a copy of the repository there, or change data.root.")
        return name, tree_sha256(folder)

    def _part(self, dataset: str, split: str) -> Part:
        """The rows of a stored split that are read for ``split``."""
        origin, splits = self._origin(dataset), self._splits(dataset)
        if "validation" in splits or split not in ("train", "validation"):
            return Part(split)
        if origin.held_out_by:
            return Part("train", held_out=split == "validation")
        return Part(origin.validation or split if split == "validation" else split)

    def _origin(self, dataset: str) -> Origin:
        if dataset not in ORIGINS:
            raise UserError(f"{dataset} is not a data set of this project; choose one of {', '.join(ORIGINS)}.")
        return ORIGINS[dataset]

    def _folder_root(self, dataset: str) -> Path | None:
        """Folder that holds the data set's folder; None on the Hub.

        For a local folder without ``text/``, general text comes from the mini data (CPython's documentation).
        """
        if self.data.name == "hub":
            return None
        if self.data.name == "mini":
            return self._mini_root()
        root = typed_path(str(self.data.root))
        if not root.is_dir():
            raise UserError(
                f"data.root={root} is not a folder; type data.root=DIR, the folder that holds gsm8k/, mmlu/ and so on."
            )
        return self._mini_root() if dataset == "text" and not (root / "text").is_dir() else root

    def _mini_root(self) -> Path:
        if self._mini is None:
            from hiplora.mini import materialise

            self._mini = materialise(self._cache_dir or default_cache_dir())
        return self._mini

    def _folder(self, dataset: str) -> Path:
        root = self._folder_root(dataset)
        folder = Path(str(root)) / dataset
        if not folder.is_dir():
            raise UserError(
                f"{folder} is missing; {dataset} is read from <split>.jsonl in it, so put it there or change data.root."
            )
        return folder

    def _splits(self, dataset: str) -> list[str]:
        if self._folder_root(dataset) is not None:
            return [
                name.removesuffix(".jsonl") for name in os.listdir(self._folder(dataset)) if name.endswith(".jsonl")
            ]
        from datasets import get_dataset_split_names

        origin = self._origin(dataset)
        return answered(
            origin, lambda: get_dataset_split_names(self._repository(origin), origin.subset, **self._revision(dataset))
        )

    def _read(self, dataset: str, split: str) -> Dataset:
        """All rows of a split with their ids."""
        if self._folder_root(dataset) is None:
            where, shown = self._repository(self._origin(dataset)), self.origin_of(dataset)
            return hub_split(dataset, split, where=where, revision=self._revision(dataset), shown=shown)
        path = self._file(dataset, split)
        ours = path.parents[1] == self._mini
        remedy = f"delete {path.parents[1]}, which is then written again" if ours else "repair or remove this line"
        return file_split(path, dataset=dataset, remedy=remedy)

    def _file(self, dataset: str, split: str) -> Path:
        path = self._folder(dataset) / f"{split}.jsonl"
        if not path.is_file():
            raise UserError(f"{path} is missing; {dataset} needs its {split} split there, one JSON object per line.")
        return path

    def _describe(self, dataset: str) -> None:
        """Look a data set up with the Hub's client, without loading it."""
        from datasets import load_dataset_builder

        origin = self._origin(dataset)
        where = self._repository(origin)
        answered(origin, lambda: load_dataset_builder(where, origin.subset, **self._revision(dataset)))

    def _repository(self, origin: Origin) -> str:
        return origin.hub_id if self.data.root is None else str(typed_path(self.data.root) / origin.hub_id)

    def _revision(self, dataset: str) -> dict[str, str]:
        """The keyword ``revision`` for the Hub's client, a commit; empty for a mirror, which holds only one."""
        if self.data.root is not None:
            return {}
        asked, repository = self.data.revisions.get(dataset), self._origin(dataset).hub_id
        return {"revision": commit(repository, asked, kind="dataset", field=f"data.revisions.{dataset}")}
