"""The materialised folder, read once, and what several tests look up in it."""

from __future__ import annotations

import json
import re
from pathlib import Path

Row = dict

TRAINING = ("alpaca/train", "scienceqa/train", "gsm8k/train", "codealpaca/train")


def read(folder: Path, name: str) -> list[Row]:
    return [json.loads(line) for line in (folder / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()]


def trained_text(row: Row) -> str:
    """Everything that a run may see of a training row."""
    if "choices" in row:
        return " ".join([row["hint"], row["question"], row["choices"][row["answer"]], row["solution"]])
    return " ".join(str(value) for value in row.values())


def training_texts(folder: Path) -> list[str]:
    return [trained_text(row) for name in TRAINING for row in read(folder, name)]


def mentions(text: str, phrase: str) -> bool:
    """Whole words only: "Niger" is not in "Nigeria"."""
    return re.search(rf"(?<![\w-]){re.escape(phrase)}(?![\w-])", text) is not None
