"""Reading and hashing jsonl files, with errors that name file and line."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hiplora.errors import UserError
from hiplora.tasks.columns import Check, complaint


def read_jsonl(
    path: Path, columns: Mapping[str, Check], *, remedy: str = "repair or remove this line"
) -> list[dict[str, Any]]:
    """All objects of a file, one per line; blank lines are skipped.

    Args:
        columns: what an object must hold.
        remedy: what to do about a line that does not.

    Raises:
        UserError: a line that is not a JSON object of these columns, or a file without any.
    """
    rows = []
    with _reading(path), path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            if line.strip():
                try:
                    rows.append(_parse(line, columns))
                except ValueError as wrong:
                    raise UserError(f"{path}:{number} {wrong}; {remedy}.") from wrong
    if not rows:
        raise UserError(f"{path} holds no items; it needs one JSON object per line.")
    return rows


def _parse(line: bytes, columns: Mapping[str, Check]) -> dict[str, Any]:
    """The object on a line. Raises ValueError: what is wrong with the line."""
    try:
        row = json.loads(line)
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"is not valid JSON ({error})") from error
    if not isinstance(row, dict):
        raise ValueError('is not a JSON object, such as {"question": …}')
    wrong = complaint(row, columns)
    if wrong is not None:
        raise ValueError(wrong)
    return row


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror or error}); make it readable.") from error


def digest(parts: Sequence[str | Path]) -> str:
    """SHA-256 over strings, or over the names and contents of files, in the given order."""
    total = hashlib.sha256()
    for part in parts:
        name, content = (part.name, _content(part)) if isinstance(part, Path) else (part, b"")
        total.update(f"{name}\0{len(content)}\0".encode())
        total.update(content)
    return total.hexdigest()


def _content(path: Path) -> bytes:
    with _reading(path):
        return path.read_bytes()
