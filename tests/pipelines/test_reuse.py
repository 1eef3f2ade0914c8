"""What is found is given back only while it is of the adapter that is there, and with the files that are asked for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from hiplora import models
from hiplora.errors import UserError
from hiplora.evaluation import engine, forward
from hiplora.stages import artefact
from hiplora.stages.store import Status, Store
from hiplora.training import trainer
from tests.pipelines.conftest import Run

MERGE = ["pipeline=merge", "method=lora", "merging.sizes=[2]", "merging.instances=1", "merging.training_seeds=[42]"]


@pytest.mark.parametrize(("gives", "made"), [("the same tensors", []), ("other tensors", ["score"])])
def test_a_forced_run_stopped_before_its_scores_is_scored_again_if_it_gave_another_adapter(
    configured, scores, monkeypatch, gives: str, made: list[str]
) -> None:
    plain, forced = configured("method=lora"), configured("method=lora", "force=true", "training.steps=3")
    first = Run(configured("method=lora", "training.steps=3"))
    Run(plain)
    scores.interrupted = True
    with monkeypatch.context() as patch:
        if gives == "other tensors":
            patch.setattr(trainer, "native_state", _otherwise(trainer.native_state))
        with pytest.raises(KeyboardInterrupt):
            Run(forced)
    scores.interrupted = False
    again = Run(configured("method=lora", "training.steps=3"))
    assert again.made == made
    assert again.record.replaced == ((first.record.digest,) if made else ())
    assert Run(plain).made == []


def test_what_was_made_of_a_replaced_adapter_is_made_again(configured, scores, monkeypatch) -> None:
    merge = configured(*MERGE)
    first = Run(merge)
    assert Run(merge).made == []
    train_id = next(iter(first.record.needs))
    member = next(w.stage.of.train for w in merge.stages() if w.shared and w.stage.of.train.id == train_id)
    single = ["method=lora", f"task={member.task.name}", "seed=42"]

    # Another adapter under the same name, as another machine's arithmetic would give it.
    monkeypatch.setattr(trainer, "native_state", _otherwise(trainer.native_state))
    assert Run(configured(*single, "pipeline=train", "force=true")).made == ["train"]
    store = Store(merge.places, local=False)
    assert store.status(store.tracked.get((first.record.id, first.record.where))) is Status.STALE
    made = Run(merge)
    assert made.made == ["score", "score"], "its member's Before, and the merge; the other member's stay"
    assert made.record.replaced == (first.record.digest,)
    assert Run(merge).made == []


def _otherwise(native_state: Any) -> Any:
    def changed(*arguments: Any) -> dict[str, Any]:
        state = native_state(*arguments)
        return state | {"adapter": {name: value + 1e-3 for name, value in state["adapter"].items()}}

    return changed


def test_an_evaluation_that_was_stopped_goes_on_behind_its_answers(
    configured, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Run(configured("pipeline=backbone"))
    kept = tmp_path / "outputs/parts"
    assert list(kept.iterdir()) == [], "the record is written, its answers are not needed any more"

    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(engine, "_score", interrupted)  # when the model has answered everything
        with pytest.raises(KeyboardInterrupt):
            Run(configured("method=lora"))
        assert len(list(kept.iterdir())) == 1
        with monkeypatch.context() as other:
            other.setattr(trainer, "native_state", _otherwise(trainer.native_state))
            with pytest.raises(KeyboardInterrupt):
                Run(configured("method=lora", "force=true"))
        assert len(list(kept.iterdir())) == 2, "another adapter under the same name has answers of its own"

    monkeypatch.setattr(forward, "causal_lm", lambda model: pytest.fail("the model was asked again"))
    assert Run(configured("method=lora")).record.result.benchmarks["text"]["tokens"] > 0
    assert len(list(kept.iterdir())) == 1, "only those of the adapter that is gone"


def test_how_a_training_is_computed_asks_for_no_other(configured, scores) -> None:
    assert Run(configured("pipeline=train")).made == ["train"]
    for setting in ("log_every=2", "checkpoint_every=1"):
        assert Run(configured("pipeline=train", f"training.{setting}")).made == []
    for setting in ("micro_batch_rows=2", "share_prefixes=false"):  # the second decides which dropout masks are drawn
        assert Run(configured("pipeline=train", f"training.{setting}")).made == ["train"]


def test_snapshots_of_earlier_runs_stay_when_a_training_adds_its_own(configured) -> None:
    first, second = ("pipeline=train", "training.snapshots=[0.5]"), ("pipeline=train", "training.snapshots=[0.25]")
    steps = "training.steps=4"
    assert Run(configured(*first, steps)).made == ["train"]
    assert Run(configured(*second, steps)).made == ["train"]
    assert Run(configured(*first, steps)).made == []
    assert Run(configured(*second, steps)).made == []


def test_an_adapter_gets_its_directions_without_being_trained_again(
    configured, scores, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = Run(configured("method.k=8"))
    trained = first.outcomes[0].record
    folder = tmp_path / "outputs/adapters" / f"{trained.id}.{trained.where}"
    weights, options = folder / "adapter_model.safetensors", folder / "adapter_config.json"
    before = load_file(weights)
    assert not any("lora_U" in name for name in before)
    monkeypatch.setattr(trainer, "train", lambda *args, **kwargs: pytest.fail("trained again"))
    asked = configured("method.k=8", "save_basis=true")

    write = artefact.write_atomically

    def broken(path: Path, content: bytes) -> None:
        if path == options:
            raise UserError("the disk is full")
        write(path, content)

    with monkeypatch.context() as patch:
        patch.setattr(artefact, "write_atomically", broken)
        with pytest.raises(UserError, match="disk is full"):
            Run(asked)
    assert Run(configured("method.k=8")).made == [], "half done, it is the adapter that it was"

    outcome = Run(asked)
    assert outcome.made == []
    assert outcome.record == first.record
    after = load_file(weights)
    assert all(after[name].equal(value) for name, value in before.items())
    added = {name.rpartition(".")[2] for name in after.keys() - before.keys()}
    assert added == {"lora_U", "lora_V"}
    assert json.loads(options.read_text())["save_basis"] is True
    assert sorted(path.name for path in folder.parent.iterdir()) == [folder.name], "nothing is left beside it"

    monkeypatch.setattr("hiplora.tuner.basis.load_or_compute", lambda *args, **kwargs: pytest.fail("an SVD"))
    asked.method.detach(asked.method.load(models.load(asked.model).model, folder))
    written = weights.stat().st_mtime_ns
    Run(asked)
    assert weights.stat().st_mtime_ns == written


def test_a_flipped_bit_in_an_adapter_is_found(configured, scores, tmp_path: Path) -> None:
    Run(configured("method=lora"))
    (weights,) = tmp_path.glob("outputs/adapters/*/adapter_model.safetensors")
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(bytes(content))
    with pytest.raises(UserError, match=r"adapter_model.safetensors is not what was written\); delete this folder"):
        Run(configured("method=lora", "evaluation.limit=3"))
