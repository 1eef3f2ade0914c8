"""Reading and hashing jsonl files, with errors that name file and line."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hiplora.errors import UserError


def read_jsonl(path: Path, columns: Sequence[str] = ()) -> list[dict[str, Any]]:
    """All objects of a file, one per line; blank lines are skipped.

    Raises:
        UserError: a line that is not a JSON object or lacks one of ``columns``, or a file without any.
    """
    rows = []
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            if line.strip():
                row = _parse(line, path, number)
                missing = [column for column in columns if column not in row]
                if missing:
                    raise UserError(f"{path}:{number} has no {', '.join(missing)}; it needs {', '.join(columns)}.")
                rows.append(row)
    if not rows:
        raise UserError(f"{path} holds no items; it needs one JSON object per line.")
    return rows


def _parse(line: bytes, path: Path, number: int) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path}:{number} is not valid JSON ({error}); repair or remove this line.") from error
    if not isinstance(row, dict):
        raise UserError(f'{path}:{number} is not a JSON object; each line needs one, such as {{"question": …}}.')
    return row


def digest(parts: Sequence[str | Path]) -> str:
    """SHA-256 over strings, or over the names and contents of files, in the given order."""
    total = hashlib.sha256()
    for part in parts:
        name, content = (part.name, part.read_bytes()) if isinstance(part, Path) else (part, b"")
        total.update(f"{name}\0{len(content)}\0".encode())
        total.update(content)
    return total.hexdigest()
