"""Edits as a user types them: a run, the same again, the first facts alone, and the table that stands on it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.edit_sets import rows, written

pytestmark = pytest.mark.e2e


def test_a_run_its_reuse_and_its_table(run, arguments, environment, tmp_path: Path) -> None:
    path = written(tmp_path / "counterfact.json", rows("counterfact"))
    words = ["pipeline=edit", f"edits.file={path}", "edits.schema=counterfact", "edits.batch=9"]
    first = run("method=lora", *words)
    assert first.returncode == 0, first.stderr
    assert "9 edits" in first.stdout
    assert "[3/3] edit lora-edits-s42" in first.stderr
    again = run("method=lora", *words)
    assert again.returncode == 0, again.stderr
    assert "[1/" not in again.stderr
    assert first.stdout.split("The record of the training")[0] == again.stdout.split("The record of the training")[0]
    one = run("method=lora", *words, "edits.batch=1")
    assert one.returncode == 0, one.stderr
    assert "train lora-edits-s42" in one.stderr, "another batch is another training"
    many = run("method=lora", *words, "edits.batch=10")
    assert many.returncode == 2
    assert "asks for more than the 9 items of the set; type edits.batch=9 or less." in many.stderr

    settings = [word for word in (*arguments, *words[1:]) if not word.startswith("method")]
    command = [sys.executable, "-m", "hiplora.reproduce", "table8", "--render-only", "method.r=4", *settings]
    table = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert table.returncode == 0, table.stderr
    lora = next(line for line in table.stdout.splitlines() if line.startswith("| LoRA"))
    assert "(1/3)" in lora
    assert "Edits: 9 at a time, of counterfact.json (schema counterfact)." in table.stdout
