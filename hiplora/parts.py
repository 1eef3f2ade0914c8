"""Finished parts of a long computation, saved one by one, so that a stopped one continues after them. A leaf."""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hiplora.disk import disk_errors


def key(*asked: Any) -> str:
    """The key of a part: 16 hex digits of the hash of what was asked, which must be JSON-serialisable."""
    return hashlib.sha256(json.dumps(asked).encode()).hexdigest()[:16]


class Parts:
    """A file of finished parts by key, one line of checksum and JSON each; it is only ever appended to.

    Args:
        path: None keeps nothing on disk. A damaged line, such as one cut off when the process was killed, is ignored.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._known: dict[str, Any] = {}
        if path is not None and path.is_file():
            for line in path.read_text(errors="replace").splitlines():
                self._known.update(_parsed(line))

    def get(self, key: str) -> Any:
        """The part, or None."""
        return self._known.get(key)

    def missing(self, keys: Sequence[str]) -> list[int]:
        """The indices of the keys that have no part yet."""
        return [index for index, key in enumerate(keys) if key not in self._known]

    def keep(self, parts: Mapping[str, Any]) -> None:
        """Add parts, JSON-serialisable.

        Raises:
            UserError: the disk is full or not writable.
        """
        self._known.update(parts)
        if self._path is not None:
            with disk_errors(self._path):
                self._path.parent.mkdir(parents=True, exist_ok=True)
                with self._path.open("a") as file:  # the last line may be cut off, so each starts with a line break
                    file.writelines(f"\n{_line({name: part})}" for name, part in parts.items())

    def forget(self) -> None:
        """Remove the file, once a record holds the result."""
        if self._path is not None:
            self._path.unlink(missing_ok=True)


def _line(part: dict[str, Any]) -> str:
    """A part as a line: its checksum, then JSON."""
    text = json.dumps(part)
    return f"{zlib.crc32(text.encode()):08x} {text}"


def _parsed(line: str) -> dict[str, Any]:
    text = line[9:]
    try:
        if line[:9] != f"{zlib.crc32(text.encode()):08x} ":
            return {}
        found = json.loads(text)
    except (json.JSONDecodeError, UnicodeEncodeError):
        return {}
    return found if isinstance(found, dict) else {}
