"""The materialised folder, read once, and what several tests look up in it."""

from __future__ import annotations

import json
from pathlib import Path

Row = dict


def read(folder: Path, name: str) -> list[Row]:
    return [json.loads(line) for line in (folder / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()]
