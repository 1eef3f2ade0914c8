"""Adapters that this project did not train, as a user types it: scored as PEFT puts them on, merged, never twice."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import ModelCard
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from tests.commands import forked
from tests.records import by_name, records

pytestmark = pytest.mark.e2e
OFF = "evaluation.code_execution=off"


@pytest.fixture
def unnamed(arguments: list[str]) -> list[str]:
    """The arguments of a small run that leave out the backbone, which the adapter's own configuration names."""
    said = ("model=", "model.name=", "model.path=")
    return [word for word in arguments if not word.startswith(said)]


def test_an_adapter_of_our_own_has_the_scores_that_its_run_gave_it(run, unnamed, environment, tmp_path: Path) -> None:
    trained = run("method=lora", OFF)
    assert trained.returncode == 0, trained.stderr
    (folder,) = (tmp_path / "outputs/adapters").iterdir()
    done = forked([*unnamed, "pipeline=evaluate", f"adapter={folder}", "pipeline.trained_on=gsm8k", OFF], environment)
    assert done.returncode == 0, done.stderr
    scores = by_name(tmp_path / "results", "score")
    (own,) = (record for record in scores.values() if record["name"].startswith("lora-gsm8k"))
    (again,) = (record for record in scores.values() if record["name"].startswith("folder-"))
    assert again["result"]["benchmarks"] == own["result"]["benchmarks"]
    told = [line for line in trained.stdout.splitlines() if line.startswith("Forgotten outside gsm8k")]
    assert [line for line in done.stdout.splitlines() if line.startswith("Forgotten")] == told
    assert "score backbone-" in done.stdout.split("Reused: ")[1], "the backbone is the one that the adapter names"
    (drift,) = records(tmp_path / "results", "drift")
    (training,) = records(tmp_path / "results", "train")
    measured = {name: training["result"]["measures"][name] for name in drift["result"]["measures"]}
    assert drift["result"]["measures"] == pytest.approx(measured, rel=1e-4)
    assert str(tmp_path) not in json.dumps([again, drift])
    card = ModelCard.load(folder / "README.md")
    assert card.data.eval_results is None, "the run has scored a part of the items"
    assert str(tmp_path) not in str(card)


def test_two_of_stock_peft_and_their_merge(unnamed, environment, backbone: Path, tmp_path: Path) -> None:
    for number, name in enumerate(("a", "b")):
        torch.manual_seed(number)
        options: dict[str, Any] = {"target_modules": ["q_proj", "up_proj"][: number + 1], "task_type": "CAUSAL_LM"}
        model: Any = get_peft_model(AutoModelForCausalLM.from_pretrained(backbone), LoraConfig(r=4, **options))
        for key, parameter in model.named_parameters():
            if ".lora_B." in key:
                parameter.data += 0.1 * torch.randn_like(parameter)
        model.save_pretrained(tmp_path / name)
    words = [*unnamed, "pipeline=evaluate", f"adapter=[{tmp_path}/a,{tmp_path}/b]", "merge=ties", OFF]
    done = forked(words, environment)
    assert done.returncode == 0, done.stderr
    scores = by_name(tmp_path / "results", "score")
    assert sum(name.startswith("folder") for name in scores) == 3
    assert scores["folders-ties-a+b"]["result"]["report"]["operator"] == "ties"
    header = done.stdout.splitlines()[0].split()
    assert header == ["benchmark", "metric", "n", "base", "1", "2", "merged"]
    assert f"2 is {tmp_path}/b" in done.stdout
    assert done.stdout.count("of its energy in the 32 leading directions") == 2
    told = [line.partition(": Forgotten ")[0] for line in done.stdout.splitlines() if ": Forgotten " in line]
    assert told == ["1", "2", "merged"]
    out = tmp_path / "page.html"
    write = ["-m", "hiplora.report", "--results", str(tmp_path / "results/mini"), "--only", "table1", "--out", str(out)]
    subprocess.run([sys.executable, *write], env=environment, capture_output=True, check=True)
    links = [f'<a href="#r-{scores[name]["id"]}-cpu-float32">{name}</a>' for name in ("folder-a", "folder-b")]
    assert f"Made from {', '.join(links)}." in out.read_text()
    shutil.move(tmp_path / "a", tmp_path / "c")
    again = forked([*unnamed, "pipeline=evaluate", f"adapter={tmp_path}/c", OFF], environment)
    assert again.returncode == 0, again.stderr
    assert "[1/" not in again.stderr, "the same content under another name"
