"""``logging=wandb`` with the real package, offline: what its files hold after a run, and after a killed one."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from wandb.proto.wandb_internal_pb2 import Record

from tests.commands import forked, killed

pytestmark = pytest.mark.e2e
TRACKED = ["logging=wandb", "evaluation.code_execution=off", "method.k=8"]
HEADER, BLOCK, PIECE = 7, 2**15, 7  # bytes: of the file, of a LevelDB log block, of the header of each piece
LAST = (1, 4)  # kinds of a piece that end a record: whole, and the last of several


@pytest.fixture(autouse=True)
def offline(environment: dict[str, str]) -> None:
    environment.pop("WANDB_MODE", None)


def events(path: Path) -> Iterator[Any]:
    """The records of a .wandb file, a LevelDB log of protocol buffers."""
    content, at, collected = path.read_bytes(), HEADER, b""
    while at + PIECE <= len(content):
        left = BLOCK - at % BLOCK
        if left < PIECE:  # too little for a piece: filled with zeros
            at += left
            continue
        length, kind = int.from_bytes(content[at + 4 : at + 6], "little"), content[at + 6]
        collected += content[at + PIECE : at + PIECE + length]
        at += PIECE + length
        if kind in LAST:
            yield Record.FromString(collected)
            collected = b""


def values(items: Any) -> dict[str, Any]:
    return {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items}


def read(path: Path) -> tuple[Any, list[dict[str, Any]], dict[str, Any]]:
    """The run as it was started, its history, and its summary."""
    run, history, summary = None, [], {}
    for event in events(path):
        kind = event.WhichOneof("record_type")
        if kind == "run":
            run = event.run
        elif kind == "history":
            history.append(values(event.history.item))
        elif kind == "summary":
            summary |= values(event.summary.update)
    return run, history, summary


def files(outputs: Path, identity: str) -> list[Path]:
    """The W&B files of a run, the newest last."""
    return sorted((outputs / "wandb").glob(f"offline-run-*-{identity}/run-{identity}.wandb"))


def test_curve_and_scores_stay_after_the_run(run, tmp_path: Path) -> None:
    done = run(*TRACKED)
    assert done.returncode == 0, done.stderr
    records = [json.loads(path.read_text()) for path in (tmp_path / "results/mini/records").rglob("*.json")]
    named = {record["asked"].get("of", record["asked"])["kind"]: record for record in records}
    told = {}
    for name, record in named.items():
        (file,) = files(tmp_path / "outputs", record["id"])
        told[name] = read(file)
        assert (told[name][0].project, told[name][0].job_type) == ("hiplora", record["kind"])
    assert told["train"][0].run_group == told["adapter"][0].run_group != told["backbone"][0].run_group
    curve = [(entry["_step"], entry["train/loss"], entry["train/tokens"]) for entry in told["train"][1]]
    assert curve == [(e["step"], e["loss"], e["tokens"]) for e in named["train"]["result"]["curve"]]
    assert told["adapter"][2]["gsm8k/nll"] == named["adapter"]["result"]["benchmarks"]["gsm8k"]["nll"]


def test_a_killed_training_is_one_whole_curve(arguments, environment, tmp_path: Path) -> None:
    wanted = [*TRACKED, "pipeline=train", "training.steps=20"]
    command = [*arguments, *wanted]
    killed(command, environment, lambda: [*(tmp_path / "outputs/checkpoints").glob("*/*/step-*")])
    resumed = forked(command, environment)
    assert resumed.returncode == 0, resumed.stderr
    (path,) = (tmp_path / "results/mini/records/train").glob("*.json")
    record = json.loads(path.read_text())
    assert record["result"]["resumed_from"] is not None
    *_, whole = kept = files(tmp_path / "outputs", record["id"])
    assert len(kept) == 2
    history = read(whole)[1]
    assert [(e["_step"], e["train/loss"]) for e in history] == [
        (e["step"], e["loss"]) for e in record["result"]["curve"]
    ]
