"""Selection as a user types it, on a small grid: killed and typed again, and typed twice side by side."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.records import scores

pytestmark = [pytest.mark.e2e, pytest.mark.slow]  # several selections of a tiny model, each some minutes
RATES = "stages=[['training.lr=1e-2','training.lr=3e-2']]"
GRID = [  # it states what selection may have changed in conf/
    "pipeline=select",
    *(f"~pipeline.methods.{name}" for name in ("hip", "hip_no_stability", "pissa", "adalora", "dora", "split")),
    "pipeline.words=['training.steps=6']",
    "pipeline.against=['method=lora','method.r=4','method.dropout=0.05','training.lr=1e-2']",
    "pipeline.methods.lora.start=['method=lora','method.r=4','method.dropout=0.05']",
    "pipeline.methods.proj.start=['method=proj','method.r=4','method.k=8','training.weight_decay=0.01']",
    *(f"pipeline.methods.{name}.{words}" for name in ("lora", "proj") for words in (RATES, "finalists=2")),
    "pipeline.final_tasks=[gsm8k]",
    "pipeline.final_seeds=[8]",
    "pipeline.level_seeds=[8]",  # so that the reference reaches the level in the finals
    "pipeline.level_tasks=[gsm8k,code]",
    "pipeline.scales=[0.25,1.0]",
    "pipeline.level_scale=0.25",
    "pipeline.objective=[text]",
    "pipeline.own_items=2",
    "pipeline.other_items=1",
    "pipeline.text_tokens=64",
]
PLACES = ("outputs_dir", "results_dir")
SET = ("method.", "training.steps=")  # by the grid; the command refuses the first


def command(arguments: list[str], folder: Path, *words: str) -> list[str]:
    """A run whose outputs and results lie in a folder."""
    kept = [word for word in arguments if not word.startswith((*PLACES, *SET))]
    own = [f"outputs_dir={folder}/outputs", f"results_dir={folder}/results"]
    return [sys.executable, "-m", "hiplora.run", *kept, *own, *words]


def start(arguments: list[str], environment: dict[str, str], folder: Path) -> subprocess.Popen[str]:
    words = command(arguments, folder, *GRID)
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def made(errors: str) -> list[str]:
    """The stages of which a process says that it makes them."""
    return [line.split("] ")[1] for line in errors.splitlines() if line.startswith("[") and "/" in line.split("]")[0]]


def chosen(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "results/mini/selection.json").read_text())


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory, cache: Path, backbone: Path) -> tuple[Path, list[str]]:
    """A selection made by one process, never stopped, and what it made."""
    from tests.tiny import SMALL

    folder = tmp_path_factory.mktemp("alone")
    environment = {**os.environ, "HIPLORA_CACHE": str(cache), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    process = start([*SMALL, f"model.path={backbone}"], environment, folder)
    printed, errors = process.communicate(timeout=1800)
    assert process.returncode == 0, errors
    assert "Written: " in printed
    assert "To write into conf/selected/mini/lora.yaml:\n  training:\n    lr: 0." in printed
    return folder, made(errors)


def test_a_selection_names_its_records(alone: tuple[Path, list[str]]) -> None:
    folder, lines = alone
    selection = chosen(folder)
    assert len(lines) == len({*lines})
    assert {trial["method"] for trial in selection["trials"]} == {"lora", "proj"}
    assert selection["levels"].keys() == {"gsm8k", "code"}
    ids = {path.name.split(".")[0].rsplit("-", 1)[1] for path in (folder / "results/mini/records").glob("*/*.json")}
    for trial in selection["trials"]:
        assert {trial["first"]["train"], trial["first"]["frontier"]} <= ids


def test_a_selection_that_was_killed_goes_on_to_the_same(
    alone: tuple[Path, list[str]], arguments: list[str], environment: dict[str, str], tmp_path: Path
) -> None:
    process = start(arguments, environment, tmp_path)
    assert process.stderr is not None
    seen = 0
    for line in process.stderr:
        seen += line.startswith("[") and "frontier" in line
        if seen == 4:
            break
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not (tmp_path / "results/mini/selection.json").exists()
    done = subprocess.run(
        command(arguments, tmp_path, *GRID), capture_output=True, text=True, env=environment, timeout=1800
    )
    assert done.returncode == 0, done.stderr
    assert 0 < len(made(done.stderr)) < len(alone[1])
    for name in ("selection.json", "selection.md"):
        assert (tmp_path / "results/mini" / name).read_bytes() == (alone[0] / "results/mini" / name).read_bytes()


def test_two_processes_share_the_work(
    alone: tuple[Path, list[str]], arguments: list[str], environment: dict[str, str], tmp_path: Path
) -> None:
    first = start(arguments, environment, tmp_path)
    time.sleep(1)
    processes = [first, start(arguments, environment, tmp_path)]
    outputs = [process.communicate(timeout=1800) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    shares = [made(errors) for _, errors in outputs]
    assert sorted(shares[0] + shares[1]) == sorted(alone[1]), "everything once"
    assert min(map(len, shares)) >= len(alone[1]) // 4
    assert chosen(tmp_path) == chosen(alone[0])


def test_what_follows_is_at_the_levels_and_names_the_selection(
    alone: tuple[Path, list[str]], arguments: list[str], environment: dict[str, str]
) -> None:
    """A frontier with its full score at the level; then four merges of what the two tasks' adapters are there."""
    folder = alone[0]
    small = [
        word for word in GRID if word.startswith(("pipeline.scales", "pipeline.own", "pipeline.other", "pipeline.text"))
    ]
    base = [
        "training.steps=6",
        "training.lr=1e-2",
        "evaluation.code_execution=off",
        "seed=custom",
        "seed.value=8",
        *small,
    ]

    def run(*words: str) -> str:
        done = subprocess.run(
            command(arguments, folder, *base, *words), capture_output=True, text=True, env=environment, timeout=1800
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    printed = run("pipeline=frontier", "method=lora")
    assert "The level of gsm8k" in printed
    merge = ["pipeline=matched_merge", "method=proj", "method.k=8", "pipeline.tasks=[gsm8k,code]"]
    merge.append("pipeline.against=['method=lora','method.r=4','method.dropout=0.05']")
    for words in ([], ["merge=ties", "pipeline.rescaled=true"]):
        assert "kept" in run(*merge, *words)
    merged = scores(folder / "results", "merged")
    assert {tuple(sorted({"scales", "norms"} & each["asked"]["of"].keys())) for each in merged} == {
        ("norms",),
        ("scales",),
    }
    for each in merged:
        assert each["result"]["benchmarks"]["gsm8k"]["acc"] is None, "likelihoods only"
        assert len(each["environment"]["selection"]) == 12
