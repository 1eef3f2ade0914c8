"""A line of trainings through the engine: what a child is made from, resumes from, and is worth."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch

from hiplora import models
from hiplora.errors import UserError
from hiplora.pipelines.base import Config, training
from hiplora.stages.artefact import NATIVE
from hiplora.stages.make import Engine, Wanted, pending
from hiplora.stages.record import Record
from hiplora.stages.store import Status, Store
from hiplora.stages.train import Train
from hiplora.tracking import Tracking
from tests.stopping import stopped

STEPS = 6  # of tests.tiny.SMALL, with a checkpoint every 2


@pytest.fixture
def small(small: list[str]) -> list[str]:
    """Without an option of a method, which not every method has."""
    return [word for word in small if not word.startswith("method.")]


def fitted(config: Config) -> Config:
    """With the ranks that fit the tiny model, of the options that the method has."""
    ranks = {"r": 4, "k": 8, "init_r": 6, "target_r": 4, "clients": 2, "cut": 0.5}
    method = config.method
    return config.but(method=method.but(**{key: value for key, value in ranks.items() if key in method.fields()}))


def line(configured: Callable[..., Config], *words: str) -> Train:
    """A training on one task that goes on from one on another, with a seed of its own."""
    parent = training(fitted(configured("task=gsm8k", "seed=42", *words)))
    return training(fitted(configured("task=mmlu", "seed=100", *words))).but(parent=parent)


def engine_of(config: Config, *, force: bool = False) -> Engine:
    return Engine(Store(config.places), Tracking(enabled=False, folder=Path(config.outputs_dir)), force=force)


def run(config: Config, train: Train, *, force: bool = False) -> tuple[Record, list[str]]:
    """The record of a training, and the kinds and names of what was made for it."""
    engine = engine_of(config, force=force)
    (outcome,) = engine.run([Wanted(train)])
    return outcome.record, [made.rpartition("-")[0] for made in engine.made]


class Killed(BaseException):
    """Stands for a signal."""


def killed(config: Config, train: Train, *, at: int) -> None:
    """Run a training and end it in the hook after its step ``at``."""
    with stopped(train.method, at=at, by=Killed):
        run(config, train)
    assert not any("lora" in name for name, _ in models.load(train.model).model.named_parameters())


def replace_parent(config: Config, parent: Train) -> Record:
    """Train the parent anew, to another result: as after a change of the code that nobody declared."""
    cls = type(parent.method)
    after_step = cls.after_step

    def drift(self: Any, peft_model: Any, step: int) -> None:
        after_step(self, peft_model, step)
        with torch.no_grad():
            for parameter in (p for p in peft_model.parameters() if p.requires_grad):
                parameter *= 1.01

    with patch.object(cls, "after_step", drift):
        return run(config, parent, force=True)[0]


@pytest.mark.parametrize("name", ["adalora", "hip", "pissa"])
def test_a_training_goes_on_from_its_parent(configured: Callable[..., Config], name: str) -> None:
    """Through the engine; tests/methods/test_go_on.py does so for every method, without it."""
    child = line(configured, f"method={name}")
    config = configured()
    before = {key: value.clone() for key, value in models.load(child.model).model.state_dict().items()}
    record, made = run(config, child)
    assert child.parent is not None
    assert made == [f"train {name}-gsm8k-s42", f"train {name}-gsm8k+mmlu-s100"]
    store = Store(config.places)
    parent = store.current((child.parent.id, child.parent.where()))
    assert parent is not None
    assert record.needs == {parent.id: parent.digest}
    assert store.status(record) is Status.GOOD
    assert record.result.steps == STEPS
    assert record.digest != parent.digest

    backbone = models.load(child.model).model.state_dict()
    assert backbone.keys() == before.keys()
    assert all(torch.equal(value, before[key]) for key, value in backbone.items())
    assert run(config, child) == (record, [])


def test_a_killed_child_resumes_from_its_checkpoint(configured: Callable[..., Config], tmp_path: Path) -> None:
    child, config = line(configured), configured()
    assert child.parent is not None
    run(config, child.parent)
    killed(config, child, at=5)
    record, made = run(config, child)
    assert made == [f"train {child.name()}"]
    assert record.result.resumed_from == 4
    assert list((tmp_path / "outputs/checkpoints").iterdir()) == []

    elsewhere = configured(f"outputs_dir={tmp_path}/whole/outputs", f"results_dir={tmp_path}/whole/results")
    whole, _ = run(elsewhere, child)
    assert whole.result.resumed_from is None
    assert (whole.digest, whole.needs, whole.result.curve) == (record.digest, record.needs, record.result.curve)


def test_a_child_is_stale_when_its_parent_was_replaced_and_then_made_again(configured: Callable[..., Config]) -> None:
    child, config = line(configured), configured()
    assert child.parent is not None
    record, _ = run(config, child)
    run(config, child.parent, force=True)
    assert Store(config.places).status(record) is Status.GOOD, "the same result again"
    assert run(config, child) == (record, [])

    parent = replace_parent(config, child.parent)
    store = Store(config.places)
    assert parent.replaced == tuple(record.needs.values())
    assert store.status(record) is Status.STALE
    assert pending(store, [child]) == [child]
    again, made = run(config, child)
    assert made == [f"train {child.name()}"]
    assert again.needs == {child.parent.id: parent.digest}
    assert again.digest != record.digest
    assert again.result.curve[0]["loss"] != record.result.curve[0]["loss"], "the first step sees the parent"
    assert again.replaced == (record.digest,)
    assert Store(config.places).status(again) is Status.GOOD


def test_checkpoints_are_of_the_parent_that_was_there(configured: Callable[..., Config], tmp_path: Path) -> None:
    child, config = line(configured), configured()
    assert child.parent is not None
    run(config, child.parent)
    killed(config, child, at=5)
    replace_parent(config, child.parent)
    record, _ = run(config, child)
    assert record.result.resumed_from is None
    assert list((tmp_path / "outputs/checkpoints").iterdir()) == []


def test_a_torn_native_state_is_named(configured: Callable[..., Config]) -> None:
    child, config = line(configured), configured()
    assert child.parent is not None
    run(config, child.parent)
    folder = config.places.artefact(child.parent.id, child.parent.where())
    (folder / NATIVE).write_bytes((folder / NATIVE).read_bytes()[:-100])
    with pytest.raises(UserError, match=rf"{folder} is not complete \({NATIVE} .* delete this folder"):
        run(config, child)


def test_names_and_ids_of_a_line(configured: Callable[..., Config]) -> None:
    child = line(configured)
    parent = child.parent
    assert parent is not None
    grandchild = child.but(task=parent.task, parent=child)
    assert [train.task.name for train in grandchild.line()] == ["gsm8k", "mmlu", "gsm8k"]
    method = parent.method.name
    names = [f"{method}-gsm8k-s42", f"{method}-gsm8k+mmlu-s100", f"{method}-gsm8k+mmlu+gsm8k-s100"]
    assert [train.name() for train in grandchild.line()] == names
    others = [child.but(parent=None), child.but(parent=parent.but(seed=7)), child.but(parent=child.but(parent=None))]
    assert len({train.id for train in (*grandchild.line(), *others)}) == 6
    assert child.identity()["parent"] == {"stage": parent.id}
    bookkeeping = child.training.but(log_every=3)
    assert child.but(parent=parent.but(training=bookkeeping, save_basis=True)).id == child.id


def test_a_parent_of_another_adapter_is_refused(configured: Callable[..., Config]) -> None:
    child = line(configured)
    assert child.parent is not None
    for words, change in {
        "method": {"method": child.method.but(dropout=0.5)},
        "model.target_modules": {"targets": ("q_proj",)},
        "model, svd": {"model": child.model.but(dtype="bfloat16"), "svd": None},
    }.items():
        with pytest.raises(
            UserError, match=rf"continues from an adapter with another {words}; give both the same options"
        ):
            child.but(parent=child.parent.but(**change))
    child.but(parent=child.parent.but(targets=tuple(reversed(child.targets))))
