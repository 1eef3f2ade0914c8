"""Where the benchmarks come from: one schema, three origins.

``data=mini`` writes the project's own benchmarks into the cache and reads them like any folder; ``data=local``
reads ``<root>/<dataset>/<split>.jsonl``; ``data=hub`` loads repository ids (from a mirror of repositories,
``<root>/<owner>/<name>``, when ``data.root`` names one). Past this module nothing knows which it was.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from hiplora.config import Options, Place
from hiplora.errors import UserError
from hiplora.tasks import choice, gsm8k
from hiplora.tasks.columns import Check, anything, complaint, optional_text, text, text_or_blank
from hiplora.tasks.files import digest, read_jsonl

if TYPE_CHECKING:
    from datasets import Dataset


class Data(Options):
    """Options of the group ``data``: where benchmarks come from.

    Results are identified by the digests of the files that are read (:meth:`Source.reads`); ``name`` is also the
    folder of their records under ``results/``.
    """

    group: ClassVar[str] = "data"

    name: Annotated[Literal["mini", "local", "hub"], Place]
    root: Annotated[str | None, Place]
    revisions: Annotated[dict[str, str | None], Place]

    def check_options(self) -> None:
        pinned = [name for name, revision in self.revisions.items() if revision]
        if pinned and (self.name != "hub" or self.root is not None):
            raise UserError(
                f"data.revisions.{pinned[0]} pins a repository on the Hub, and data={self.name} with data.root="
                f"{self.root} loads none from there; leave it out, or type data=hub without data.root."
            )


@dataclass(frozen=True)
class Origin:
    """A data set's place on the Hub, what its columns must hold and the column that decides its held-out part."""

    repository: str
    columns: Mapping[str, Check]
    subset: str | None = None
    held_out_by: str | None = None


INSTRUCTIONS = {"instruction": text, "input": optional_text, "output": text_or_blank}
PROBLEM = {"task_id": text, "prompt": text, "canonical_solution": text, "test": text, "entry_point": text}
CHOICE = {"choices": choice.options, "answer": choice.index}
ORIGINS = {
    "gsm8k": Origin(
        "openai/gsm8k", {"question": text, "answer": gsm8k.solution}, subset="main", held_out_by="question"
    ),
    "mmlu": Origin("cais/mmlu", {"question": text, "subject": text, **CHOICE}, subset="all"),
    "scienceqa": Origin(
        "derek-thomas/ScienceQA", {"image": anything, "question": text, **CHOICE, "hint": optional_text}
    ),
    "humaneval": Origin("openai/openai_humaneval", PROBLEM),
    "codealpaca": Origin("sahil2801/CodeAlpaca-20k", INSTRUCTIONS, held_out_by="instruction"),
    "alpaca": Origin("tatsu-lab/alpaca", INSTRUCTIONS, held_out_by="instruction"),
    "text": Origin("Salesforce/wikitext", {"text": text_or_blank}, subset="wikitext-2-raw-v1"),
}
HELD_OUT_PERCENT = 5


def held_out(text: str) -> bool:
    """Whether an item belongs to the held-out 5 %: decided by a hash of its text, so that no order matters."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") % 100 < HELD_OUT_PERCENT


class Source:
    """Reads the data sets of one :class:`Data`.

    Args:
        data: origin (``mini``, ``local`` or ``hub``) and root folder.
        cache_dir: where the mini-benchmarks are written; the project's cache by default.
    """

    def __init__(self, data: Data, *, cache_dir: Path | None = None) -> None:
        if data.name == "local" and data.root is None:
            raise UserError("data=local needs a folder; type data.root=DIR, where DIR holds gsm8k/, mmlu/ and so on.")
        if unknown := sorted(set(data.revisions) - set(ORIGINS)):
            raise UserError(f"data.revisions names {', '.join(unknown)}; choose among {', '.join(ORIGINS)}.")
        self.data = data
        self._cache_dir = cache_dir
        self._mini: Path | None = None

    def load(self, dataset: str, split: str) -> Dataset:
        """One split in the Hub's schema, with an ``id`` column (``<split>/<row>``) in front.

        Where a data set has no validation split, it is the hashed 5 % of its training split, which then loses it;
        MMLU's is ``dev``.

        Raises:
            UserError: missing folder or file, a broken line, a column that is not there.
        """
        origin = self._origin(dataset)
        if split in self._splits(dataset):
            whole = self._read(dataset, split)
            if split == "train" and origin.held_out_by and "validation" not in self._splits(dataset):
                return _keep(whole, origin.held_out_by, lambda text: not held_out(text))
            return whole
        if split == "validation" and origin.held_out_by:
            return _keep(self._read(dataset, "train"), origin.held_out_by, held_out)
        if split == "validation" and dataset == "mmlu":
            return self._read(dataset, "dev")
        return self._read(dataset, split)

    def fingerprint(self, *datasets: str) -> str:
        """What identifies the data: SHA-256 of the files, or ``repository@revision`` on the Hub."""
        return digest([self._identity(dataset) for dataset in sorted(datasets)])

    def origin_of(self, dataset: str) -> str:
        """Where a data set is read from, for people: a folder or ``repository@revision``."""
        if self._folder_root(dataset) is not None:
            return str(self._folder(dataset))
        return "@".join([self._repository(self._origin(dataset)), *self._revision(dataset).values()])

    def _identity(self, dataset: str) -> str:
        if self._folder_root(dataset) is not None:
            return digest(sorted(self._folder(dataset).glob("*.jsonl")))
        origin = self._origin(dataset)
        if self.data.root is None:
            return f"{origin.repository}/{origin.subset}@{self._revision(dataset)['revision']}"
        files = sorted(path for path in Path(self._repository(origin)).rglob("*") if path.is_file())
        return digest([path for path in files if ".cache" not in path.parts and ".git" not in path.parts])

    def _origin(self, dataset: str) -> Origin:
        if dataset not in ORIGINS:
            raise UserError(f"{dataset} is not a data set of this project; choose one of {', '.join(ORIGINS)}.")
        return ORIGINS[dataset]

    def _folder_root(self, dataset: str) -> Path | None:
        """Folder that holds the data set's folder; None on the Hub.

        A local folder without ``text/`` measures general text on the mini data's, CPython's own documentation:
        the fingerprint then is that file's.
        """
        if self.data.name == "hub":
            return None
        if self.data.name == "mini":
            return self._mini_root()
        root = Path(str(self.data.root))
        if not root.is_dir():
            raise UserError(
                f"data.root={root} is not a folder; type data.root=DIR, the folder that holds gsm8k/, mmlu/ and so on."
            )
        return self._mini_root() if dataset == "text" and not (root / "text").is_dir() else root

    def _mini_root(self) -> Path:
        if self._mini is None:
            from hiplora.disk import default_cache_dir
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
            return [path.stem for path in self._folder(dataset).glob("*.jsonl")]
        from datasets import get_dataset_split_names

        origin = self._origin(dataset)
        return _hub(
            origin, lambda: get_dataset_split_names(self._repository(origin), origin.subset, **self._revision(dataset))
        )

    def _read(self, dataset: str, split: str) -> Dataset:
        rows = self._read_folder(dataset, split) if self._folder_root(dataset) else self._read_hub(dataset, split)
        if "id" in rows.column_names:
            rows = rows.remove_columns("id")
        return rows.add_column("id", [f"{split}/{row}" for row in range(len(rows))])

    def _read_folder(self, dataset: str, split: str) -> Dataset:
        from datasets import Dataset

        folder = self._folder(dataset)
        path = folder / f"{split}.jsonl"
        if not path.is_file():
            raise UserError(f"{path} is missing; {dataset} needs its {split} split there, one JSON object per line.")
        ours = folder.parent == self._mini
        remedy = f"delete {folder.parent}, which is then written anew" if ours else "repair or remove this line"
        rows = read_jsonl(path, self._origin(dataset).columns, remedy=remedy)
        try:
            return Dataset.from_list(rows)
        except (ValueError, TypeError) as error:  # pyarrow's errors derive from these
            raise UserError(f"{path}: a column changes its type between lines ({error}); give it one type.") from error

    def _read_hub(self, dataset: str, split: str) -> Dataset:
        from datasets import load_dataset

        origin = self._origin(dataset)
        where = self._repository(origin)
        rows = _hub(origin, lambda: load_dataset(where, origin.subset, split=split, **self._revision(dataset)))
        missing = [column for column in origin.columns if column not in rows.column_names]
        if missing:
            raise UserError(
                f"{self.origin_of(dataset)} ({split}) has no column {', '.join(missing)}; "
                f"{dataset} needs {', '.join(origin.columns)}."
            )
        read = {column: check for column, check in origin.columns.items() if check is not anything}
        for number, item in enumerate(rows.select_columns([*read]).to_list()):
            wrong = complaint(item, read)
            if wrong is not None:
                raise UserError(
                    f"{self.origin_of(dataset)} ({split}, row {number}) {wrong}; take another data.revisions, or "
                    "a repaired copy with data.root=DIR or data=local data.root=DIR."
                )
        return rows

    def _repository(self, origin: Origin) -> str:
        return origin.repository if self.data.root is None else str(Path(self.data.root) / origin.repository)

    def _revision(self, dataset: str) -> dict[str, str]:
        """What to load from the Hub, as a keyword; nothing for a mirror, which holds one."""
        return {"revision": self.data.revisions.get(dataset) or "main"} if self.data.root is None else {}


def _hub(origin: Origin, load: Callable[[], Any]) -> Any:
    """Turn what the Hub's client raises when it finds nothing into one sentence."""
    try:
        return load()
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(
            f"{origin.repository} could not be loaded from the Hub ({reason}); connect to it, or type "
            "data=local data.root=DIR, or data.root=DIR for a folder of downloaded repositories."
        ) from error


def _keep(rows: Dataset, column: str, wanted: Callable[[str], bool]) -> Dataset:
    return rows.select([row for row, text in enumerate(rows[column]) if wanted(text)])
