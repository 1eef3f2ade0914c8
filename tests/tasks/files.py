"""A folder of data as the tests write it, and the benchmarks that name their data."""

from __future__ import annotations

import json
from pathlib import Path

from hiplora.tasks import TASKS, task_class
from hiplora.tasks.source import Data, Source

PROJECTS = [name for name in TASKS if hasattr(task_class(name), "training")]  # data sets that the project names


def write(folder: Path, name: str, rows: list[dict]) -> Path:
    path = folder / f"{name}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def local(folder: Path) -> Source:
    return Source(Data(name="local", root=str(folder), revisions={}))


def problems(count: int) -> list[dict]:
    return [{"question": f"What is {n} + 1?", "answer": f"#### {n + 1}"} for n in range(count)]
