"""Merging as a user types it: missing adapters are trained, merged and scored, and nothing is done twice."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.e2e
SMALL = ["method.k=8", "pipeline=merge", "merging.sizes=[2]", "merging.instances=1", "merging.training_seeds=[42]"]


def only_record(results: Path) -> dict[str, Any]:
    (path,) = (results / "mini/records/merge").glob("*.json")
    return json.loads(path.read_text())


def test_merge_trains_what_it_needs_and_resumes(run, tmp_path: Path) -> None:
    first = run(*SMALL)
    assert first.returncode == 0, first.stderr
    record = only_record(tmp_path / "results")
    (instance,) = record["metrics"]["instances"]
    assert record["metrics"]["planned"] == {"2": 1}
    assert set(instance["adapters"]) == set(instance["before"]) == set(instance["after"])
    assert len(instance["adapters"]) == 2
    for task, run_id in instance["runs"].items():
        (single,) = (tmp_path / "results/mini/records/single").glob(f"*-{task}-s42-{run_id}.json")
        assert json.loads(single.read_text())["metrics"]["adapted"][task] == instance["before"][task]

    again = run(*SMALL)
    assert again.returncode == 0
    assert "Reused: merge" in again.stdout

    for path in (tmp_path / "results/mini/records/merge").glob("*.json"):
        path.unlink()
    resumed = run(*SMALL)  # the finished instance is found, the adapters and their scores too
    assert resumed.returncode == 0
    assert only_record(tmp_path / "results")["metrics"] == record["metrics"]
    assert "train" not in resumed.stderr
    ties = run(*SMALL, "merge=ties", "merge.calibration=pico")
    assert ties.returncode == 0, ties.stderr
