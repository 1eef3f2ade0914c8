"""What is found is given back only while it is of the adapter that is there, and with the files that are asked for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from hiplora import models, training
from hiplora.disk import write_atomically
from hiplora.errors import UserError
from hiplora.evaluation import engine, forward
from hiplora.pipelines import train
from hiplora.scheduler import resolve

MERGE = ["pipeline=merge", "method=lora", "merging.sizes=[2]", "merging.instances=1", "merging.training_seeds=[42]"]


def test_a_forced_run_stopped_before_its_scores_is_scored_when_typed_again(configured, scores, capsys) -> None:
    plain, forced = configured("method=lora"), configured("method=lora", "force=true")
    first = resolve(plain).record
    scores.interrupted = True
    with pytest.raises(KeyboardInterrupt):
        resolve(forced)
    scores.interrupted = False
    again = resolve(plain)
    assert [line.split()[0] for line in again.made] == ["single"], "the new adapter is there, its scores are not"
    assert "its adapter was trained anew" in capsys.readouterr().err
    trained = resolve(configured("method=lora", "pipeline=train")).record
    assert again.record["training"] == trained["training"] != first["training"]
    assert resolve(plain).made == []


def test_a_merge_is_made_again_when_a_member_was(configured, scores, capsys) -> None:
    merge = configured(*MERGE)
    record = resolve(merge).record
    assert resolve(merge).made == []
    ((task, _), *_) = record["metrics"]["instances"][0]["adapters"].items()
    member = ["method=lora", f"task={task}", "seed=42"]

    scores.interrupted = True
    with pytest.raises(KeyboardInterrupt):
        resolve(configured(*member, "force=true"))
    scores.interrupted = False
    made = resolve(merge)  # the member's scores are still the old ones, its adapter is not
    assert [line.split()[0] for line in made.made] == ["single", "merge"]
    assert "is out of date: its adapter was trained anew" in capsys.readouterr().err

    single = resolve(configured(*member, "force=true")).record
    made = resolve(merge)
    assert [line.split()[0] for line in made.made] == ["merge"]
    assert made.record["metrics"]["instances"][0]["before"][task] == single["metrics"]["adapted"][task]
    assert resolve(merge).made == []


def test_an_evaluation_that_was_stopped_goes_on_behind_its_answers(
    configured, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolve(configured("pipeline=backbone"))
    kept = tmp_path / "outputs/answers"
    assert list(kept.iterdir()) == [], "the record is written, its answers are not needed any more"

    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(engine, "_score", interrupted)  # when the model has answered everything
        for words, files in (((), 1), (("force=true",), 2)):  # forced: another adapter under the same name
            with pytest.raises(KeyboardInterrupt):
                resolve(configured("method=lora", *words))
            assert len(list(kept.glob("*/*.jsonl"))) == files

    monkeypatch.setattr(forward, "causal_lm", lambda model: pytest.fail("the model was asked again"))
    assert resolve(configured("method=lora")).record["metrics"]["adapted"]["text"]["tokens"] > 0
    assert list(kept.iterdir()) == []


def test_how_a_training_is_computed_asks_for_no_other(configured, scores) -> None:
    assert len(resolve(configured("pipeline=train")).made) == 1
    for setting in ("log_every=2", "checkpoint_every=1"):
        assert resolve(configured("pipeline=train", f"training.{setting}")).made == []
    for setting in ("micro_batch_rows=2", "share_prefixes=false"):  # the second decides which dropout masks are drawn
        assert len(resolve(configured("pipeline=train", f"training.{setting}")).made) == 1


def test_an_adapter_gets_its_directions_without_being_trained_again(
    configured, scores, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = resolve(configured("method.k=8")).record
    folder = tmp_path / "outputs/adapters" / first["needs"]["train"]
    weights, options = folder / "adapter_model.safetensors", folder / "adapter_config.json"
    before = load_file(weights)
    assert not any("lora_U" in name for name in before)
    monkeypatch.setattr(training, "train", lambda *args, **kwargs: pytest.fail("trained again"))
    asked = configured("method.k=8", "save_basis=true")

    def broken(path: Path, content: bytes) -> None:
        if path == options:
            raise UserError("the disk is full")
        write_atomically(path, content)

    with monkeypatch.context() as patch:
        patch.setattr(train, "write_atomically", broken)
        with pytest.raises(UserError, match="disk is full"):
            resolve(asked)
    backbone = models.load(asked.model).model
    asked.method.detach(asked.method.load(backbone, folder))  # half done, it loads as it did

    outcome = resolve(asked)
    assert outcome.made == []
    assert outcome.record == first
    after = load_file(weights)
    assert all(after[name].equal(value) for name, value in before.items())
    added = {name.rpartition(".")[2] for name in after.keys() - before.keys()}
    assert added == {"lora_U", "lora_V"}
    assert json.loads(options.read_text())["save_basis"] is True
    assert sorted(path.name for path in folder.parent.iterdir()) == [folder.name], "nothing is left beside it"

    monkeypatch.setattr("hiplora.tuner.model.load_or_compute", lambda *args, **kwargs: pytest.fail("an SVD"))
    asked.method.detach(asked.method.load(backbone, folder))
    written = weights.stat().st_mtime_ns
    resolve(asked)
    assert weights.stat().st_mtime_ns == written
