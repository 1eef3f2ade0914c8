"""Rows of a user's own data: jsonl, csv or parquet files and data sets on the Hub, each row with its place.

A place is how an error names a row: ``file:line``, ``file, row n`` or ``owner/name (split, row n)``.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from hiplora.errors import UserError
from hiplora.tasks.columns import shown
from hiplora.tasks.files import HALF, Stamp, holds_half, stamp

Placed = tuple[str, Mapping[str, Any]]
BOM = b"\xef\xbb\xbf"
SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "bars"}  # other than the comma, as a csv file may have them


def file_rows(path: Path, *, option: str = "task.file") -> tuple[Placed, ...]:
    """Every row of a file with its place; an unchanged file is read once per process. ``option`` is what names it.

    Raises:
        UserError: the ending is not known, the file cannot be read or holds no rows, or a line is broken.
    """
    if path.suffix not in READERS:
        raise UserError(f"{path} ends in {path.suffix or 'nothing'}; give a file that ends in {', '.join(READERS)}.")
    if not path.is_file():
        raise UserError(f"{path} is not a file; type {option}=F with one that ends in {', '.join(READERS)}.")
    rows = _read(path, stamp(path))
    if not rows:
        raise UserError(f"{path} holds no rows; give a file with one row per example.")
    return rows


@cache
def _read(path: Path, state: Stamp) -> tuple[Placed, ...]:
    return READERS[path.suffix](path)


def _jsonl(path: Path) -> tuple[Placed, ...]:
    rows = []
    for number, line in enumerate(_content(path).split(b"\n"), start=1):
        place = f"{path}:{number}"
        if line.endswith(b"\r"):
            raise UserError(f"{place} ends with CRLF; save the file with LF line endings.")
        if line.strip():
            rows.append((place, _object(place, line)))
    return tuple(rows)


def _object(place: str, line: bytes) -> Mapping[str, Any]:
    try:
        row = json.loads(line.decode(errors="surrogatepass"))  # bytes would be read as UTF-16, too
    except UnicodeDecodeError as error:
        raise _not_utf8(place, error) from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{place} is not valid JSON ({error}); repair or remove this line.") from None
    if not isinstance(row, dict):
        raise UserError(f'{place} is not a JSON object, such as {{"prompt": …, "answer": …}}; repair this line.')
    if holds_half(line, row):
        raise UserError(f"{place} {HALF}; repair or remove this line.")
    return row


def _csv(path: Path) -> tuple[Placed, ...]:
    content = _content(path)
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise _not_utf8(f"{path}:{line}", error) from None
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    rows: list[Placed] = []
    try:
        header = next(reader, [])
        twice = [name for name in header if header.count(name) > 1]
        if twice:
            raise UserError(f"{path}:1 names the column {twice[0]} twice; name each column once.")
        _check_separator(path, header)
        for fields in reader:
            place = f"{path}:{reader.line_num}"
            if fields and len(fields) != len(header):
                raise UserError(
                    f"{place} has {_columns(len(fields))}, but the header has {len(header)} ({', '.join(header)}); "
                    "give the line a value for each of them, and put texts with commas in quotes."
                )
            rows += [(place, dict(zip(header, fields, strict=True)))] if fields else []
    except csv.Error as error:
        raise UserError(f"{path}:{reader.line_num} is not valid CSV ({error}); repair or remove this line.") from None
    return tuple(rows)


def _check_separator(path: Path, header: Sequence[str]) -> None:
    """Refuse a header that another separator than the comma divides."""
    found = next((each for each in SEPARATORS if len(header) == 1 and each in header[0]), None)
    if found is not None:
        raise UserError(
            f"{path}:1, the header, has one column, {shown(header[0])}; it seems to be separated by "
            f"{SEPARATORS[found]}, but the separator must be a comma: save the file so."
        )


def _columns(count: int) -> str:
    return f"{count} column{'' if count == 1 else 's'}"


def _not_utf8(place: str, error: UnicodeDecodeError) -> UserError:
    return UserError(f"{place} is not UTF-8 ({error.reason}); save the file as UTF-8.")


def _parquet(path: Path) -> tuple[Placed, ...]:
    from pyarrow import ArrowException
    from pyarrow.parquet import read_table

    try:
        found = read_table(path).to_pylist()
    except (ArrowException, OSError) as error:
        raise UserError(
            f"{path} is not valid parquet ({' '.join(str(error).split())[:200]}); write it again."
        ) from None
    return tuple((f"{path}, row {number}", row) for number, row in enumerate(found))


def _content(path: Path) -> bytes:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror or error}); make it readable.") from None
    if content.startswith(BOM):
        raise UserError(f"{path}:1 begins with a byte order mark; save the file as UTF-8 without one (no BOM).")
    return content


READERS = {".jsonl": _jsonl, ".csv": _csv, ".parquet": _parquet}


@cache
def hub_rows(dataset: str, subset: str | None, split: str, revision: str) -> tuple[Placed, ...]:
    """Every row of one split of a data set on the Hub. Raises UserError if it cannot be loaded."""
    from datasets import load_dataset

    try:
        rows = load_dataset(dataset, subset, split=split, revision=revision).to_list()
    except Exception as error:  # the client's errors and those of the file formats have no common base
        reason = " ".join(str(error).split())[:200].rstrip(".") or type(error).__name__
        raise UserError(
            f"task.dataset={dataset} (split {split}) cannot be loaded ({reason}); connect to the Hub, name another "
            "task.split or task.subset, or give a file with task.file=F."
        ) from error
    return tuple((f"{dataset} ({split}, row {number})", row) for number, row in enumerate(rows))
