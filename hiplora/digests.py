"""SHA-256 of large files, computed once: weights take seconds, and every run is identified by them."""

from __future__ import annotations

import hashlib
import json
import re
from functools import cache
from pathlib import Path

from hiplora.disk import default_cache_dir, json_object, write_atomically


def file_digest(path: Path) -> str:
    """SHA-256 (hex) of a file, cached by its path, size and modification time."""
    state = path.stat()
    return _remembered_digest(path.resolve(), state.st_size, state.st_mtime_ns)


@cache
def _remembered_digest(path: Path, size: int, mtime_ns: int) -> str:
    note = hashlib.sha256(f"{path} {size} {mtime_ns}".encode()).hexdigest()[:24]
    memo = default_cache_dir() / "digests" / f"{note}.json"
    noted = _noted_digest(memo)
    if noted is not None:
        return noted
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    write_atomically(memo, json.dumps({"path": str(path), "sha256": digest}).encode())
    return digest


def _noted_digest(memo: Path) -> str | None:
    """The digest in a cache file; None if the file does not exist or is damaged."""
    try:
        noted = str(json_object(memo).get("sha256"))
    except (OSError, ValueError):
        return None
    return noted if re.fullmatch("[0-9a-f]{64}", noted) else None
