"""What scripts/check_mini.py prints and writes, on a tiny model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import mini_conditions
import pytest
from mini_conditions import CONDITIONS, Check, Runs, paired

from hiplora import models
from scripts.check_mini import main, report
from tests.tiny import tiny_llama_folder

TINY = ["model=folder", "model.name=tiny", "model.dtype=float32", "method.r=4", "evaluation.code_execution=off"]


def test_paired_difference() -> None:
    before, after = {"a": 0.0, "b": 1.0, "c": 0.0}, {"c": 1.0, "a": 1.0, "b": 1.0}
    assert paired(before, after) == pytest.approx((2 / 3, 1 / 3))


def test_an_unknown_condition_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--results", str(tmp_path), "--only", "C1,C9"])
    assert "C9 is unknown" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("word", "only_proj"),
    [
        ("training.weight_decay=0.5", False),
        ("evaluation.limit=12", False),
        ("evaluation.code_samples=2", False),
        ("method.k=8", True),
        ("training.lr=3e-3", True),
    ],
)
def test_results_of_other_settings_are_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, word: str, only_proj: bool
) -> None:
    """Also if nothing is typed and conf/ itself changes, for all methods or for Proj-LoRA alone, which C5 uses."""
    compose = mini_conditions.compose

    def changed(typed: list[str]) -> Any:
        return compose([*typed, word] if "method=proj" in typed or not only_proj else typed)

    def kept(check: Check, *words: str) -> list[str]:
        report(tmp_path, [check], Runs(tmp_path, words).asked())
        return [each["name"] for each in json.loads((tmp_path / "checks.json").read_text())["checks"]]

    assert kept(Check("C5", None, {"spread": 0.25})) == ["C5"]
    assert kept(Check("C7", True), "training.snapshots=[]") == ["C5", "C7"], "the setting changes no number"
    monkeypatch.setattr(mini_conditions, "compose", changed)
    assert kept(Check("C7", True)) == ["C7"]


@pytest.mark.e2e
def test_every_condition_is_told_with_its_numbers(
    shared_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HIPLORA_CACHE", str(shared_cache))
    monkeypatch.setattr(mini_conditions, "AA_SEEDS", (7, 8))  # the fewest that have a spread
    monkeypatch.setattr(mini_conditions, "AA_TASKS", ("gsm8k",))
    backbone = tiny_llama_folder(tmp_path / "backbone")
    command = ["--small", "--results", str(tmp_path / "runs"), "--out", str(tmp_path / "out"), "--only"]
    words = [",".join(CONDITIONS), *TINY, f"model.path={backbone}"]
    try:
        assert main([*command, *words]) == 1, "a model of random weights meets no condition on scores"
        printed = capsys.readouterr().out
        records = sorted((tmp_path / "runs").rglob("records/*/*.json"))
        before = {path: path.stat().st_mtime_ns for path in records}
        assert main([*command, *words]) == 1
    finally:
        models.forget()
    assert capsys.readouterr().out == printed
    assert {path: path.stat().st_mtime_ns for path in records} == before, "every record is found again"
    whole = (tmp_path / "out" / "checks.md").read_text()
    assert main([*command, *words, "--only", "C7"]) == 0
    assert (tmp_path / "out" / "checks.md").read_text() == whole, "other conditions of the same settings stay"
    told = json.loads((tmp_path / "out" / "checks.json").read_text())
    found = {check["name"]: check for check in told["checks"]}
    assert list(found) == sorted(CONDITIONS)
    assert all(f"{name} " in printed and check["numbers"] for name, check in found.items())
    assert {name: check["passed"] for name, check in found.items() if name in ("C1", "C5", "C7")} == {
        "C1": False,
        "C5": None,
        "C7": True,
    }
    for task in ("mmlu", "scienceqa"):
        assert 0.2 < found["C1"]["numbers"][f"{task}, chance"] < 0.6
    base, adapted = (
        next(json.loads(path.read_text()) for path in records if path.name.startswith(name) and "score" in path.parts)
        for name in ("backbone-tiny", "lora-gsm8k-s7")
    )
    rise = adapted["result"]["benchmarks"]["text"]["nll"] - base["result"]["benchmarks"]["text"]["nll"]
    assert found["C3"]["numbers"]["gsm8k, seed 7, rise of text"] == pytest.approx(rise)
    assert "text_sampled" in base["result"]["benchmarks"]
    page = (tmp_path / "out" / "checks.md").read_text()
    assert "## C7 pass: nothing held out is told in a training corpus" in page
