"""Nothing held out is told in training, and what is planted there is found."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from hiplora.mini import world
from hiplora.mini.facts import countries
from hiplora.mini.leaks import leaks
from tests.mini.helpers import read


def test_nothing_held_out_is_told_in_training(folder: Path) -> None:
    assert leaks(folder) == {"mmlu": [], "scienceqa": [], "gsm8k": [], "code": []}


@pytest.fixture
def planted(folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(folder, tmp_path / "planted"))


def add(folder: Path, name: str, row: dict) -> None:
    with (folder / f"{name}.jsonl").open("a") as lines:
        lines.write(json.dumps(row) + "\n")


def test_what_is_planted_is_found(planted: Path) -> None:
    """In other words, in another corpus and in another story."""
    country = next(c for c in countries() if world.assigned().get(c.name) == "test" and "the " not in c.name)
    add(planted, "gsm8k/train", {"question": f"Ann flies to {country.name}. What now?", "answer": "#### 1"})
    question = "There are 3 birds in a tree. Then 4 more birds fly into it. How many birds are in the tree now?"
    add(planted, "gsm8k/test", {"question": question, "answer": "#### 7"})
    again = "Kate has 4 shells. She gets 3 more. How many shells does Kate have now?"
    add(planted, "alpaca/train", {"instruction": again, "input": "", "output": "7"})
    held_out = next(row for row in read(planted, "scienceqa/test") if row["category"] == "States of matter")
    told = {
        "instruction": f"Yes: {held_out['question']}",
        "input": "",
        "output": held_out["choices"][held_out["answer"]],
    }
    add(planted, "alpaca/train", told)
    function = read(planted, "humaneval/test")[0]
    body = function["prompt"].replace(function["entry_point"], "another") + function["canonical_solution"]
    add(planted, "codealpaca/train", {"instruction": "Write it.", "input": "", "output": body})
    found = leaks(planted)
    assert found["mmlu"] == [country.name.removeprefix("the ")]
    assert question in found["gsm8k"]
    assert len(found["scienceqa"]) >= 1
    assert found["code"] == [function["entry_point"]]
