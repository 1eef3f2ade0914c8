"""Continual tuning as a user types it: killed between stages and inside one, it ends as if it had not been."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.commands import forked, killed
from tests.records import records

pytestmark = pytest.mark.e2e
WORDS = ["method=lora", "pipeline=continual", "pipeline.order=[mmlu,gsm8k]", "evaluation.code_execution=off"]
LONG = "training.steps=30"


def recorded(results: Path) -> dict[str, dict[str, Any]]:
    return {f"{record['kind']} {record['name']}": record for record in records(results)}


def test_killed_between_stages_and_inside_one(run, arguments, environment, tmp_path: Path) -> None:
    outputs, results = tmp_path / "killed/outputs", tmp_path / "killed/results"
    places = [f"outputs_dir={outputs}", f"results_dir={results}"]
    command = [*arguments, *WORDS, LONG, *places]
    killed(command, environment, lambda: "score lora-mmlu-s42" in recorded(results))  # stage 1 is complete
    assert "train lora-mmlu+gsm8k-s42" not in recorded(results)
    killed(command, environment, lambda: [*(outputs / "checkpoints").glob("*/*/step-*")])  # of stage 2
    assert "train lora-mmlu+gsm8k-s42" not in recorded(results)

    resumed = forked(command, environment)
    assert resumed.returncode == 0, resumed.stderr
    assert "train lora-mmlu-s42" not in resumed.stderr, "stage 1 is not made again"
    assert recorded(results)["train lora-mmlu+gsm8k-s42"]["result"]["resumed_from"] is not None
    straight = run(*WORDS, LONG)
    assert straight.returncode == 0, straight.stderr
    expected, found = recorded(tmp_path / "results"), recorded(results)
    assert {name: record["digest"] for name, record in found.items()} == {
        name: record["digest"] for name, record in expected.items()
    }
    assert len(found) == 5

    again = run(*WORDS, LONG)
    assert again.returncode == 0, again.stderr
    assert "[1/" not in again.stderr
    assert again.stdout.split("Reused")[0].splitlines()[:4] == straight.stdout.splitlines()[:4]
    single = run("method=lora", "task=mmlu", "evaluation.code_execution=off", LONG)
    train = expected["train lora-mmlu-s42"]
    assert f"train {train['name']}-{train['id']}" in single.stdout.split("Reused: ")[1]
    assert "[1/" not in single.stderr
