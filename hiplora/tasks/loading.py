"""The rows of a split as a data set, from a file or from the Hub; each row has an ``id``, ``<split>/<row>``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hiplora.errors import UserError
from hiplora.tasks.columns import anything, complaint
from hiplora.tasks.files import Stamp, read_jsonl, stamp
from hiplora.tasks.origins import ORIGINS, Origin

if TYPE_CHECKING:
    from datasets import Dataset


def file_split(path: Path, *, dataset: str, remedy: str) -> Dataset:
    """The rows of a file; an unchanged file is read once per process.

    Raises:
        UserError: a line is broken (the message ends with ``remedy``), or a column changes its type.
    """
    return _file_split(path, stamp(path), dataset=dataset, remedy=remedy)


@cache
def _file_split(path: Path, state: Stamp, *, dataset: str, remedy: str) -> Dataset:
    from datasets import Dataset

    rows = read_jsonl(path, ORIGINS[dataset].columns, remedy=remedy)
    try:
        return _with_ids(Dataset.from_list(rows), path.stem)
    except (ValueError, TypeError) as error:  # pyarrow's errors derive from these
        raise UserError(f"{path}: a column changes its type between lines ({error}); give it one type.") from error


def hub_split(dataset: str, split: str, *, where: str, revision: Mapping[str, str], shown: str) -> Dataset:
    """The rows of a split on the Hub, or of a mirror.

    Args:
        where: the repository's id, or the mirror's folder; ``revision`` as the Hub's client takes it.
        shown: the data set's name in error messages.

    Raises:
        UserError: it cannot be loaded, a column is missing, or a value fails its check.
    """
    from datasets import load_dataset

    origin = ORIGINS[dataset]
    rows = answered(origin, lambda: load_dataset(where, origin.subset, split=split, **revision))
    missing = [column for column in origin.columns if column not in rows.column_names]
    if missing:
        raise UserError(
            f"{shown} ({split}) has no column {', '.join(missing)}; {dataset} needs {', '.join(origin.columns)}."
        )
    read = {column: check for column, check in origin.columns.items() if check is not anything}
    for number, item in enumerate(rows.select_columns([*read]).to_list()):
        wrong = complaint(item, read)
        if wrong is not None:
            raise UserError(
                f"{shown} ({split}, row {number}) {wrong}; take another data.revisions, or a repaired copy with "
                "data.root=DIR or data=local data.root=DIR."
            )
    return _with_ids(rows, split)


def answered(origin: Origin, load: Callable[[], Any]) -> Any:
    """The result of a call to the Hub's client. Raises UserError if the call fails."""
    try:
        return load()
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(
            f"{origin.repository} could not be loaded from the Hub ({reason}); connect to it, or type "
            "data=local data.root=DIR, or data.root=DIR for a folder of downloaded repositories."
        ) from error


def _with_ids(rows: Dataset, split: str) -> Dataset:
    if "id" in rows.column_names:
        rows = rows.remove_columns("id")
    return rows.add_column("id", [f"{split}/{row}" for row in range(len(rows))])
