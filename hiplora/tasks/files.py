"""Reading and hashing jsonl files, with errors that name file and line."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, TypeAlias

from hiplora.errors import UserError
from hiplora.tasks.columns import Check, complaint

HALF = "holds half of a character (a lone surrogate)"
_SURROGATES = re.compile(rb"\\u[dD][89a-fA-F]|\xed[\xa0-\xbf]")  # escaped, or as bytes, which json.loads lets pass


def read_jsonl(
    path: Path, columns: Mapping[str, Check], *, remedy: str = "repair or remove this line"
) -> list[dict[str, Any]]:
    """All objects of a file, one per line; blank lines are skipped. Arguments and errors as :func:`placed_jsonl`."""
    return [row for _, row in placed_jsonl(path, columns, remedy=remedy)]


def placed_jsonl(
    path: Path, columns: Mapping[str, Check], *, remedy: str = "repair or remove this line"
) -> list[tuple[str, dict[str, Any]]]:
    """All objects of a file, each with its place, ``<path>:<line>``.

    Args:
        columns: the checks that an object must pass.
        remedy: what to do about a faulty line, for the message.

    Raises:
        UserError: a line is not a JSON object with these columns, or the file holds none.
    """
    rows = []
    with _reading(path), path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            if line.strip():
                try:
                    rows.append((f"{path}:{number}", _parse(line, columns)))
                except ValueError as wrong:
                    raise UserError(f"{path}:{number} {wrong}; {remedy}.") from wrong
    if not rows:
        raise UserError(f"{path} holds no items; it needs one JSON object per line.")
    return rows


def placed_array(path: Path, columns: Mapping[str, Check]) -> list[tuple[str, dict[str, Any]]]:
    """All objects of a file that is one JSON array, each with its place, ``<path>, item <number>``.

    Raises:
        UserError: the file is not such an array, is empty, or an element fails a check.
    """
    with _reading(path):
        content = path.read_bytes()
    try:
        found = json.loads(content)
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UserError(
            f"{path} is not valid JSON ({error}); repair it, or use one object per line (.jsonl)."
        ) from error
    if not isinstance(found, list) or not found:
        raise UserError(f"{path} holds no items; a .json file needs an array of objects, a .jsonl file one per line.")
    placed = [(f"{path}, item {number}", row) for number, row in enumerate(found, start=1)]
    if holds_half(content, found):
        broken = next(place for place, row in placed if holds_half(content, row))
        raise UserError(f"{broken} {HALF}; repair or remove it.")
    return checked(placed, columns)


def checked(placed: Sequence[tuple[str, Any]], columns: Mapping[str, Check]) -> list[tuple[str, dict[str, Any]]]:
    """The objects with their places, each checked. Raises UserError, which names the place of a faulty one."""
    for place, row in placed:
        wrong = complaint(row, columns) if isinstance(row, dict) else "is not a JSON object"
        if wrong is not None:
            raise UserError(f"{place} {wrong}; repair or remove it.")
    return list(placed)


def _parse(line: bytes, columns: Mapping[str, Check]) -> dict[str, Any]:
    """The object on a line. Raises ValueError, which says what is wrong with the line."""
    try:
        row = json.loads(line)
    except UnicodeDecodeError as error:
        raise ValueError(f"is not UTF-8 ({error.reason})") from error
    except (json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"is not valid JSON ({error})") from error
    if not isinstance(row, dict):
        raise ValueError('is not a JSON object, such as {"question": …}')
    if holds_half(line, row):
        raise ValueError(HALF)
    wrong = complaint(row, columns)
    if wrong is not None:
        raise ValueError(wrong)
    return row


def holds_half(raw: bytes, value: Any) -> bool:
    """Whether a text in ``value``, which was parsed from the JSON ``raw``, cannot be encoded as UTF-8.

    Such a text passes every other check, and no tokenizer takes it.
    """
    if not _SURROGATES.search(raw):
        return False
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return True
    return False


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror or error}); make it readable.") from error


Stamp: TypeAlias = tuple[int, int, int, int]


def stamp(path: Path) -> Stamp:
    """Device, inode, size and modification time of a file; equal stamps are taken to mean equal content."""
    with _reading(path):
        state = path.stat()
    return state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns


def sha256(path: Path) -> str:
    """SHA-256 (hex) of a file's content; an unchanged file is read once per process."""
    return _sha256(path, stamp(path))


@cache
def _sha256(path: Path, state: Stamp) -> str:
    with _reading(path), path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def tree(folder: Path) -> list[Path]:
    """The files below a folder, sorted, without the internal folders of git and of the Hub's client."""
    own = {".git", ".cache"}
    files = (path for path in folder.rglob("*") if not own & {*path.relative_to(folder).parts})
    return sorted(path for path in files if path.is_file())


def tree_sha256(folder: Path) -> str:
    """SHA-256 (hex) over the relative paths and contents of the files below a folder."""
    lines = "".join(f"{path.relative_to(folder).as_posix()} {sha256(path)}\n" for path in tree(folder))
    return hashlib.sha256(lines.encode()).hexdigest()
