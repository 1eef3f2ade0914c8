"""What is written, and that it is always the same."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from hiplora import disk, mini
from tests.mini.helpers import read

INSTRUCTION = {"instruction", "input", "output"}
SCIENCE = {
    "image", "question", "choices", "answer", "hint", "task", "grade", "subject", "topic", "category", "skill",
    "lecture", "solution",
}  # fmt: skip
# File -> (columns of the data set on the Hub, fewest and most rows).
SCHEMA = {
    "gsm8k/train": ({"question", "answer"}, 1500, 1800),
    "gsm8k/validation": ({"question", "answer"}, 300, 300),
    "gsm8k/test": ({"question", "answer"}, 300, 300),
    "mmlu/validation": ({"question", "subject", "choices", "answer"}, 300, 300),
    "mmlu/test": ({"question", "subject", "choices", "answer"}, 300, 300),
    "scienceqa/train": (SCIENCE, 1500, 2000),
    "scienceqa/validation": (SCIENCE, 300, 300),
    "scienceqa/test": (SCIENCE, 300, 300),
    "alpaca/train": (INSTRUCTION, 1300, 1500),
    "codealpaca/train": (INSTRUCTION | {"entry_point"}, 1500, 1500),
    "codealpaca/validation": (INSTRUCTION | {"entry_point", "test"}, 80, 80),
    "humaneval/test": ({"task_id", "prompt", "entry_point", "canonical_solution", "test"}, 80, 80),
    "text/test": ({"text"}, 19, 19),
    "text/validation": ({"text"}, 19, 200),
    "text_sampled/test": ({"text"}, 64, 64),
    "text_sampled/validation": ({"text"}, 64, 64),
}


def digest(folder: Path) -> str:
    total = hashlib.sha256()
    for path in sorted(folder.rglob("*.jsonl")):
        total.update(path.relative_to(folder).as_posix().encode() + path.read_bytes())
    return total.hexdigest()


@pytest.mark.parametrize("name", SCHEMA)
def test_columns_and_size(folder: Path, name: str) -> None:
    columns, fewest, most = SCHEMA[name]
    rows = read(folder, name)
    assert fewest <= len(rows) <= most
    assert {frozenset(row) for row in rows} == {frozenset(columns)}


def test_every_file_is_in_the_schema(folder: Path) -> None:
    assert {path.relative_to(folder).with_suffix("").as_posix() for path in folder.rglob("*.jsonl")} == set(SCHEMA)


def test_two_processes_write_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    """In another process the order of sets and the hash of strings differ; the files must not."""
    script = (
        f"from pathlib import Path; from hiplora.mini import materialise; print(materialise(Path({str(tmp_path)!r})))"
    )
    root = Path(mini.__file__).parents[2]
    environment = {**os.environ, "PYTHONHASHSEED": "12345", "PYTHONPATH": str(root)}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert digest(Path(done.stdout.strip())) == digest(folder)


def test_an_existing_folder_is_not_written_again(folder: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*.jsonl")}
    assert mini.materialise(folder.parent) == folder
    assert before == {path: path.stat().st_mtime_ns for path in folder.rglob("*.jsonl")}
    assert [path for path in folder.parent.iterdir() if path.is_dir()] == [folder]


def test_a_folder_that_is_not_what_was_written_is_written_anew(folder: Path, tmp_path: Path, capsys) -> None:
    target = mini.materialise(tmp_path)
    path = target / "gsm8k/test.jsonl"
    path.write_text(path.read_text().replace("1", "2", 1))
    disk._INTACT.clear()  # as in another process
    assert mini.materialise(tmp_path) == target
    assert "is not what was written into it; it is made anew" in capsys.readouterr().err
    assert digest(target) == digest(folder)


def test_no_row_twice_within_a_split(folder: Path) -> None:
    for name in SCHEMA:
        rows = read(folder, name)
        asked = [
            str([row.get(k) for k in ("hint", "question", "instruction", "input", "prompt", "text", "output")])
            for row in rows
        ]
        assert not [text for text, count in Counter(asked).items() if count > 1], name


@pytest.mark.parametrize("name", ["gsm8k", "scienceqa", "mmlu", "codealpaca"])
def test_no_row_in_two_splits(folder: Path, name: str) -> None:
    seen: dict[str, str] = {}
    for path in sorted((folder / name).glob("*.jsonl")):
        for row in read(folder, f"{name}/{path.stem}"):
            key = f"{row.get('hint', '')} {row.get('question') or row['instruction'] + row['output']}"
            assert seen.setdefault(key, path.stem) == path.stem, key
