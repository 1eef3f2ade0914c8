"""What runs have recorded, as read back from their folder of results."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def records(results: Path, kind: str = "*", *, data: str = "mini") -> list[dict[str, Any]]:
    """The tracked records of a kind, or of all kinds, in the order of their files."""
    return [json.loads(path.read_text()) for path in sorted((results / data / "records").glob(f"{kind}/*.json"))]


def by_name(results: Path, kind: str) -> dict[str, dict[str, Any]]:
    """The tracked records of a kind by their names."""
    return {record["name"]: record for record in records(results, kind)}


def scores(results: Path, of: str) -> list[dict[str, Any]]:
    """The tracked scores of one kind of source: backbone, adapter or merged."""
    return [record for record in records(results, "score") if record["asked"]["of"]["kind"] == of]
