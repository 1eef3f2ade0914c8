"""An adapter scaled, along its training, and what is measured of both: against the adapter as PEFT has it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from hiplora import models
from hiplora.errors import UserError
from hiplora.evaluation import engine
from hiplora.merging.base import Operator
from hiplora.pipelines.base import Config, frontier, scores, training
from hiplora.stages import energy
from hiplora.stages.base import Job, Source
from hiplora.stages.frontier import Frontier
from hiplora.stages.make import Engine, Outcome, Wanted
from hiplora.stages.score import Score
from hiplora.stages.sources import Adapted, Backbone, Merged, Scaled, Snapshot, trained_updates
from hiplora.stages.store import Store
from hiplora.stages.train import Train
from hiplora.tracking import Tracking

ITEMS = {"scales": (0.5, 1.0), "own_items": 4, "other_items": 2, "text_tokens": 64}
SIZES = {"r": 4, "k": 8, "init_r": 6, "target_r": 4, "clients": 2, "cut": 0.5, "average_every": 3}
EIGHT = ["training.steps=8", "training.snapshots=[0.5]", "training.warmup_ratio=0"]


@pytest.fixture
def small(small: list[str]) -> list[str]:
    """Without an option of a method, which not every method has."""
    return [*(word for word in small if not word.startswith("method.")), "training.lr=1e-2"]


@pytest.fixture
def configured(configured: Callable[..., Config]) -> Callable[..., Config]:
    """With sizes that fit the tiny model, of the options that the method has."""

    def config(*words: str) -> Config:
        found = configured("evaluation.code_execution=off", *words)
        sizes = {key: value for key, value in SIZES.items() if key in found.method.fields()}
        return found.but(method=found.method.but(**sizes))

    return config


def made(config: Config, *stages: Any) -> tuple[list[Outcome], list[str]]:
    """The outcomes of some stages, and the kinds of what was made for them."""
    engine = Engine(Store(config.places), Tracking(enabled=False, folder=Path(config.outputs_dir)))
    return engine.run([Wanted(stage) for stage in stages]), [line.split()[0] for line in engine.made]


def job_of(config: Config, source: Source) -> Job:
    """What a stage that stands on a source is given."""
    stage = Score(of=source, benchmarks=(), evaluation=config.evaluation, data=config.data)
    return Engine(Store(config.places), Tracking(enabled=False, folder=Path(config.outputs_dir)))._job(stage)


def logits(config: Config, source: Source) -> torch.Tensor:
    backbone = models.load(config.model)
    ids = torch.arange(2, 42).reshape(2, 20)
    with source.on(backbone, job_of(config, source)) as loaded, torch.no_grad():
        return loaded.model.eval()(input_ids=ids).logits


@pytest.mark.parametrize("name", ["lora", "hip", "dora"])
def test_a_scaled_adapter_is_the_adapter_with_its_update_scaled(configured: Callable[..., Config], name: str) -> None:
    config = configured(f"method={name}")
    train = training(config)
    made(config, train)
    backbone = models.load(config.model)
    before = {key: value.clone() for key, value in backbone.model.state_dict().items()}
    plain = logits(config, Backbone(model=config.model))
    whole = logits(config, Adapted(train=train))
    torch.testing.assert_close(logits(config, Scaled(of=train, scale=1.0)), whole, rtol=1e-4, atol=1e-5)

    source = Adapted(train=train)
    with source.on(backbone, job_of(config, source)) as loaded:  # by hand: PEFT's own scaling, where it has one
        updates = train.method.updates(loaded.model)  # type: ignore[arg-type]
        dense = {key: 0.3 * update.dense() for key, update in updates.items()}
    for key, delta in dense.items():
        backbone.model.get_submodule(key).get_parameter("weight").data += delta
    folded = logits(config, Backbone(model=config.model))
    for key in dense:
        backbone.model.get_submodule(key).get_parameter("weight").data.copy_(before[f"{key}.weight"])
    scaled = logits(config, Scaled(of=train, scale=0.3))
    torch.testing.assert_close(scaled, folded, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(scaled, whole, atol=1e-3)
    assert not torch.allclose(scaled, plain, atol=1e-3)
    after = backbone.model.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(value, before[key]) for key, value in after.items())
    assert torch.equal(logits(config, Backbone(model=config.model)), plain)


def test_pefts_own_scaling_gives_the_same_logits(configured: Callable[..., Config]) -> None:
    from peft.tuners.lora import LoraLayer

    config = configured("method=lora")
    train = training(config)
    made(config, train)
    source = Adapted(train=train)
    with source.on(models.load(config.model), job_of(config, source)) as loaded, torch.no_grad():
        for module in loaded.model.modules():
            if isinstance(module, LoraLayer):
                module.scale_layer(0.3)
        by_peft = loaded.model(input_ids=torch.arange(2, 42).reshape(2, 20)).logits
    torch.testing.assert_close(logits(config, Scaled(of=train, scale=0.3)), by_peft, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["dora", "hip", "pissa", "split"])
def test_half_of_a_training_is_the_training_of_half_the_steps(configured: Callable[..., Config], name: str) -> None:
    """AdaLoRA's schedule depends on the number of steps: its snapshot is tested below."""
    whole, half = (configured(f"method={name}", *EIGHT, *more) for more in ([], ["training.steps=4"]))
    trains = training(whole), training(half)
    made(whole, *trains)
    snapshot = Snapshot(train=trains[0], fraction=0.5)
    found = snapshot.updates(models.load(whole.model), job_of(whole, snapshot))
    expected = trained_updates(trains[1], models.load(half.model), job_of(half, Adapted(train=trains[1])))
    assert energy.norm(found) > 0
    for key, update in expected.items():
        torch.testing.assert_close(found[key].dense(), update.dense(), rtol=1e-4, atol=1e-6)
    assert logits(whole, snapshot).isfinite().all()
    assert not any("lora" in key for key, _ in models.load(whole.model).model.named_parameters())


def test_adaloras_snapshot_keeps_its_mask(configured: Callable[..., Config]) -> None:
    """At the last step the ranks are final: the snapshot of all steps is the adapter."""
    config = configured("method=adalora", "training.steps=8", "training.snapshots=[0.99]")
    train = training(config)
    made(config, train)
    snapshot = Snapshot(train=train, fraction=0.99)
    backbone = models.load(config.model)
    expected = trained_updates(train, backbone, job_of(config, snapshot))
    for key, update in snapshot.updates(backbone, job_of(config, snapshot)).items():
        torch.testing.assert_close(update.dense(), expected[key].dense(), rtol=1e-4, atol=1e-6)


def test_an_adapter_without_the_snapshot_that_is_asked_for_is_restored(
    configured: Callable[..., Config], tmp_path: Path
) -> None:
    config = configured("method=lora", "training.snapshots=[]")
    (first,), _ = made(config, training(config))
    asked = configured("method=lora", "training.snapshots=[0.5]")
    assert training(asked).id == training(config).id, "snapshots change no number"
    (again,), kinds = made(asked, frontier(asked, training(config), **ITEMS).but(fractions=(0.5,)))
    assert kinds == ["train", "frontier"]
    assert [point.fraction for point in again.record.result.points] == [1.0, 1.0, 0.5]
    assert made(config, training(config)) == ([first], []), "the same adapter, with more beside it"
    (kept,) = tmp_path.glob("outputs/adapters/*/snapshot-*.pt")
    kept.unlink()
    assert made(asked, training(asked))[1] == ["train"]


def test_a_frontier_goes_on_behind_the_points_that_it_has(
    configured: Callable[..., Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = configured("method=lora", "training.snapshots=[0.5]")
    train = training(config)
    stage = frontier(config, train, **ITEMS)
    made(config, train)
    evaluate, calls = engine.evaluate, []

    def stopped(*args: Any, **kwargs: Any) -> Any:
        calls.append(kwargs["evaluation"])
        if len(calls) == 4:  # in the second point
            raise KeyboardInterrupt
        return evaluate(*args, **kwargs)

    monkeypatch.setattr(engine, "evaluate", stopped)
    with pytest.raises(KeyboardInterrupt):
        made(config, stage)
    (outcome,), kinds = made(config, stage)
    assert kinds == ["frontier"]
    assert len(calls) == 4 + 4, "two calls for each of the two points that were not finished"
    assert list(tmp_path.glob("outputs/parts/*")) == []
    monkeypatch.undo()

    points = outcome.record.result.points
    assert [(point.scale, point.fraction) for point in points] == [(0.5, 1.0), (1.0, 1.0), (1.0, 0.5)]
    measures = store_of(config, train).measures
    assert store_of(config, train).gains == [], "LoRA has no principal channel"
    assert points[0].norm == pytest.approx(measures["update_norm"] / 2, rel=1e-6)
    assert points[0].top_share == pytest.approx(measures["top_share"], rel=1e-6)
    for point in points:
        assert point.learning.keys() == {"gsm8k"}
        assert point.learning["gsm8k"].keys() == {"nll", "n"}
        assert point.benchmarks.keys() >= {"mmlu", "scienceqa", "gsm8k", "code", "text"}
        assert point.benchmarks["mmlu"].keys() == {"nll", "n"}
        assert point.benchmarks["text"]["tokens"] == 63


def store_of(config: Config, train: Train) -> Any:
    record = Store(config.places).current((train.id, train.where()))
    assert record is not None
    return record.result


def test_its_numbers_are_those_of_a_full_evaluation(configured: Callable[..., Config]) -> None:
    config = configured("method=lora", "task=scienceqa", "evaluation.text_tokens=64", "training.snapshots=[]")
    base, train = Backbone(model=config.model), training(config)
    items = {**ITEMS, "scales": (1.0,), "other_items": 4}
    learned = config.but(evaluation=config.evaluation.but(splits="validation"))
    only = config.but(evaluation=config.evaluation.but(likelihood_only=True))
    outcomes, _ = made(
        config,
        *(frontier(config, of, **items) for of in (base, train)),
        *(scores(each, of) for each in (config, learned) for of in (base, train)),
        scores(only, train),
    )
    results = [outcome.record.result for outcome in outcomes]
    for place in (0, 1):
        (point,) = results[place].points
        test, validation = results[2 + place].benchmarks, results[4 + place].benchmarks
        for name, found in point.benchmarks.items():
            assert found["nll"] == pytest.approx(test[name]["nll"], rel=1e-4)
        for name, found in point.learning.items():
            assert found["nll"] == pytest.approx(validation[name]["nll"], rel=1e-4)
            assert found.get("acc") == validation[name].get("acc") or name in ("gsm8k", "code")
    assert results[0].points[0].learning.keys() == {"mmlu", "scienceqa", "gsm8k", "code"}
    assert results[1].points[0].learning.keys() == {"scienceqa"}
    assert (results[0].points[0].scale, results[0].points[0].norm) == (0, 0)
    assert results[6].benchmarks["mmlu"]["acc"] is None
    assert results[6].benchmarks["mmlu"]["nll"] == pytest.approx(results[3].benchmarks["mmlu"]["nll"], rel=1e-4)


def test_merged_members_are_scaled_or_brought_to_norms(configured: Callable[..., Config]) -> None:
    config = configured("method=lora", "training.snapshots=[]", "training.steps=2")
    trains = tuple(training(config, seed=seed) for seed in (42, 100))
    made(config, *trains)
    operator: Operator = config.merge
    plain = Merged(adapters=trains, operator=operator)
    assert plain.identity() == Merged(adapters=trains, operator=operator, scales=None, norms=None).identity()
    assert "scales" not in plain.identity()
    backbone, job = models.load(config.model), job_of(config, plain)
    before = [trained_updates(train, backbone, job) for train in trains]
    halves = Merged(adapters=trains, operator=operator, scales=(0.5, 2.0))._members(backbone, job)
    brought = Merged(adapters=trains, operator=operator, norms=(3.0, 0.25))._members(backbone, job)
    assert [energy.norm(each) for each in halves] == pytest.approx(
        [f * energy.norm(u) for f, u in zip((0.5, 2), before, strict=True)]
    )
    assert [energy.norm(each) for each in brought] == pytest.approx([3.0, 0.25])
    with pytest.raises(UserError, match="scales has 1 numbers for 2 adapters"):
        Merged(adapters=trains, operator=operator, scales=(0.5,))
    with pytest.raises(UserError, match="not both"):
        Merged(adapters=trains, operator=operator, scales=(0.5, 0.5), norms=(1.0, 1.0))


def test_what_is_typed_becomes_a_scaled_score(configured: Callable[..., Config]) -> None:
    plain, scaled = (configured("method=lora", *more) for more in ([], ["evaluation.scale=0.75"]))
    (train, base, score), (same_train, same_base, other) = (
        [wanted.stage for wanted in config.stages()]
        for config in (plain, scaled)  # type: ignore[union-attr]
    )
    assert (train.id, base.id) == (same_train.id, same_base.id)
    assert score.id != other.id
    assert other.name() == "lora-gsm8k-s42-x0.75"
    for wrong, told in (("0", "must be at least"), ("nan", "must be a finite number"), ("x", "must be a number")):
        with pytest.raises(UserError, match=rf"evaluation\.scale={wrong} {told}"):
            configured("method=lora", f"evaluation.scale={wrong}")
    with pytest.raises(UserError, match=r"training\.snapshots\.0=1\.5 must be below 1"):
        configured("training.snapshots=[1.5]")
    assert isinstance(frontier(plain, train, **ITEMS), Frontier)
    with pytest.raises(UserError, match="the backbone's takes neither"):
        frontier(plain, train, **ITEMS).but(scales=(), fractions=())
