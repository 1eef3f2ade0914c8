"""Merging as a user types it: missing adapters are trained, merged and scored, and nothing is done twice."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.records import scores

pytestmark = pytest.mark.e2e
SMALL = ["method.k=8", "pipeline=merge", "merging.sizes=[2]", "merging.instances=1", "merging.training_seeds=[42]"]


def test_merge_trains_what_it_needs_and_resumes(run, tmp_path: Path) -> None:
    first = run(*SMALL)
    assert first.returncode == 0, first.stderr
    (merged,), alone = scores(tmp_path / "results", "merged"), scores(tmp_path / "results", "adapter")
    assert len(merged["needs"]) == len(alone) == 2
    assert all(record["needs"].items() <= merged["needs"].items() for record in alone)
    tasks = {record["asked"]["of"]["train"]["task"]["name"] for record in alone}
    assert set(merged["result"]["benchmarks"]) == {*tasks, "text", "text_sampled"}
    assert merged["result"]["report"]["adapters"] == 2
    assert all(task in first.stdout for task in tasks)

    again = run(*SMALL)
    assert again.returncode == 0
    assert "score hip-addition-" in again.stdout.split("Reused: ")[1]

    for path in (tmp_path / "results/mini/records/score").glob("hip-addition-*.json"):
        path.unlink()
    resumed = run(*SMALL)  # the adapters and their scores are found
    assert resumed.returncode == 0
    (redone,) = scores(tmp_path / "results", "merged")
    assert redone["digest"] == merged["digest"]
    assert "train" not in resumed.stderr
    ties = run(*SMALL, "merge=ties", "merge.calibration=pico")
    assert ties.returncode == 0, ties.stderr
