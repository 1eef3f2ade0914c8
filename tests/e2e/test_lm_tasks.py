"""Tasks of lm-eval as a user types them: before and after, in the record, the table, Retain and the list of records."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from lm_eval import simple_evaluate
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager

from tests.commands import forked
from tests.lm_tasks import toy_tasks
from tests.records import records
from tests.report.pages import Read

pytestmark = pytest.mark.e2e
OFF = "evaluation.code_execution=off"
COLUMNS, RETAIN = 14, 8  # of the page's list of runs

NAMES = ["toy_written", "toy_text", "toy_group"]


def test_before_and_after_beside_the_four(run, arguments, environment, backbone: Path, tmp_path: Path) -> None:
    folder = toy_tasks(tmp_path / "tasks")
    asked = [OFF, f"evaluation.tasks=[{','.join(NAMES)}]", f"evaluation.include_path={folder}"]
    done = run("method=lora", *asked, "evaluation.retain=[mmlu,toy_group]")
    assert done.returncode == 0, done.stderr
    found = records(tmp_path / "results", "score")
    plain_base, base, plain, adapted = sorted(found, key=lambda each: (each["name"], bool(each["result"]["lm_eval"])))
    assert base["result"]["benchmarks"] == plain_base["result"]["benchmarks"]
    assert plain_base["id"] in base["needs"]
    assert adapted["result"]["benchmarks"] == plain["result"]["benchmarks"]
    assert str(tmp_path) not in json.dumps([base, adapted])

    (adapter,) = (tmp_path / "outputs/adapters").iterdir()
    wanted = scored_by_lm_eval(folder, backbone, adapter)
    for name, task in adapted["result"]["lm_eval"].items():
        found = {key if "," in key else f"{key},none": value for key, value in task["metrics"].items()}
        assert found == pytest.approx(wanted[name], rel=1e-4)

    table = done.stdout.splitlines()
    (head,) = (line.split() for line in table if line.startswith("lm-eval"))
    assert head == ["lm-eval", "metric", "n", "base", "adapted"]
    assert [line.split()[:3] for line in table if line.startswith("toy_")] == [
        ["toy_written", "length,whole", "4"], ["toy_written", "length,word", "4"],
        ["toy_text", "word_perplexity", "4"], ["toy_text", "bits_per_byte", "4"], ["toy_group", "acc", "8"],
    ]  # fmt: skip
    (group,) = (line for line in table if line.startswith("toy_group"))
    assert len(re.findall(r"0\.\d{3} ±0\.\d{3}", group)) == 2
    falls = [
        before["result"][part][name]["acc"] - after["result"][part][name]["acc"]
        for before, after in [(flattened(base), flattened(adapted))]
        for part, name in (("benchmarks", "mmlu"), ("lm_eval", "toy_group"))
    ]
    assert f"Retain {50 * sum(falls):+.2f} pp over mmlu, toy_group acc" in done.stdout

    here = ["--results", str(tmp_path / "results/mini"), f"outputs_dir={tmp_path / 'outputs'}"]
    show = [sys.executable, "-m", "hiplora.runs", "show", adapted["id"], *here]
    printed = subprocess.run(show, capture_output=True, text=True, env=environment, check=True).stdout
    for words in ("lm_eval.toy_group.acc ", "lm_eval.toy_group.acc ±", "Predictions: lm_eval/toy_written, 8"):
        assert words in printed
    assert "prompt Question: Which colour has thing" in printed

    out = tmp_path / "page.html"
    write = [sys.executable, "-m", "hiplora.report", *here, "--only", "table1", "--out", str(out), "--retain"]
    subprocess.run([*write, "mmlu,toy_group"], capture_output=True, text=True, env=environment, check=True)
    (row,) = (r for r in Read(out.read_text()).rows if len(r) == COLUMNS and r[0][0].startswith("lora"))
    assert float(row[RETAIN][0].replace("−", "-")) == pytest.approx(50 * sum(falls), abs=0.006)
    assert "Question: Which colour has thing" in out.read_text()
    for names, reason in (("toy_less", "--retain names toy_less, which is not"), ("toy_text", "is better when lower")):
        refused = subprocess.run([*write, names], capture_output=True, text=True, env=environment, check=False)
        assert reason in refused.stderr

    again = run("method=lora", *asked)
    assert "Forgotten outside gsm8k (lower is better): Retain" in again.stdout
    assert "pp over" not in again.stdout
    assert len(records(tmp_path / "results", "score")) == 4, "what Retain counts makes no other record"
    said = ("model=", "model.name=", "model.path=")
    unnamed = [word for word in arguments if not word.startswith(said)]
    elsewhere = [*unnamed, "pipeline=evaluate", f"adapter={adapter}", "pipeline.drift=false", *asked]
    done = forked(elsewhere, environment)
    assert done.returncode == 0, done.stderr
    found = [each for each in records(tmp_path / "results", "score") if each["name"].startswith("folder")]
    (again,) = filter(asked_of, found)
    assert asked_of(again) == asked_of(adapted)


def scored_by_lm_eval(folder: Path, backbone: Path, adapter: Path) -> dict[str, dict[str, float]]:
    """What lm-eval's own model says of the same adapter on its backbone."""
    manager = TaskManager(include_path=str(folder), include_defaults=False)
    lm = HFLM(pretrained=str(backbone), peft=str(adapter), device="cpu", dtype="float32")
    found: Any = simple_evaluate(lm, tasks=NAMES, task_manager=manager, limit=4, bootstrap_iters=0)
    return {
        name: {key: value for key, value in scores.items() if "," in key and "_stderr" not in key}
        for name, scores in found["results"].items()
    }


def asked_of(record: dict[str, Any]) -> dict[str, Any]:
    return record["result"]["lm_eval"]


def flattened(record: dict[str, Any]) -> dict[str, Any]:
    """A record whose tasks hold their metrics as benchmarks do."""
    theirs = {name: task["metrics"] for name, task in asked_of(record).items()}
    return {"result": {**record["result"], "lm_eval": theirs}}
