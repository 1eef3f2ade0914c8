"""Efficiency: turns go round, a stopped measurement goes on, the backbone stays as it was."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from hiplora import models
from hiplora.errors import UserError
from hiplora.methods import method_class
from hiplora.stages.efficiency import Efficiency, speed_behind
from hiplora.stages.make import Engine, Wanted
from hiplora.stages.store import Store
from hiplora.tracking import Tracking
from tests.pipelines.conftest import Run

WORDS = ["pipeline=efficiency", "efficiency.steps=2", "efficiency.warmup=1", "efficiency.repetitions=2"]


@pytest.fixture
def small(small: list[str]) -> list[str]:
    """Without an option of a method, which this pipeline refuses."""
    return [word for word in small if not word.startswith("method.")]


def test_a_stopped_measurement_goes_on(configured, monkeypatch: pytest.MonkeyPatch):
    config = configured(*WORDS, "pipeline.methods=[lora,hip]")
    before = {name: value.clone() for name, value in models.load(config.model).model.state_dict().items()}
    turn, order = Efficiency._turn, []

    def stopping(self, backbone, method):
        if len(order) == 3:
            raise KeyboardInterrupt
        order.append(method.name)
        return turn(self, backbone, method)

    monkeypatch.setattr(Efficiency, "_turn", stopping)
    with pytest.raises(KeyboardInterrupt):
        Run(config)
    assert order == ["lora", "hip", "hip"]  # the second round begins with the other method
    left = []
    monkeypatch.setattr(Efficiency, "_turn", lambda *args: left.append(args[2].name) or turn(*args))
    record = Run(config).record
    assert left == ["lora"]
    assert {name: len(cost.tokens_per_second) for name, cost in record.result.methods.items()} == {"lora": 2, "hip": 2}
    assert all(cost.peak_memory_bytes > 0 for cost in record.result.methods.values())
    assert record.result.svd_cache_bytes > 0
    assert record.where.startswith("cpu-float32-")
    assert record.where.endswith(f"-t{torch.get_num_threads()}")
    for name, value in models.load(config.model).model.state_dict().items():
        assert torch.equal(value, before[name])


def test_the_terminal_shows_a_row_per_method(configured):
    head, *rows = Run(configured(*WORDS, "pipeline.methods=[lora,hip]")).text.splitlines()[:3]
    assert "tokens per second" in head
    assert [row.split()[0] for row in rows] == ["lora", "hip"]


def test_all_methods_have_one_dropout_rate(configured):
    """Selection gave LoRA none, and masks take time."""
    (wanted,) = configured(*WORDS, "pipeline.methods=[lora,pissa,hip,adalora]").stages()
    assert {name: method.dropout for name, method in wanted.stage.methods.items()} == dict.fromkeys(
        ("lora", "pissa", "hip", "adalora"), 0.05
    )


def test_a_turn_is_one_training_and_its_last_steps_are_timed(configured, monkeypatch: pytest.MonkeyPatch):
    """A method that ends before its timed steps has thrown away what it trains."""
    calls: dict[str, list] = {}
    for name in ("split", "adalora"):
        kind, found = method_class(name), calls.setdefault(name, [])
        after_step, finish = kind.after_step, kind.finish
        monkeypatch.setattr(kind, "after_step", lambda *a, to=found, do=after_step: to.append(a[2]) or do(*a))
        monkeypatch.setattr(kind, "finish", lambda *a, to=found, do=finish: to.append("finish") or do(*a))
    words = ["efficiency.steps=5", "efficiency.warmup=3", "efficiency.repetitions=1"]
    config = configured(*WORDS, *words, "pipeline.methods=[split,adalora]")
    (wanted,) = config.stages()
    methods = wanted.stage.methods | {"split": wanted.stage.methods["split"].but(clients=2, cut=0.5)}
    engine = Engine(Store(config.places), Tracking(enabled=False, folder=Path(config.outputs_dir)))
    (outcome,) = engine.run([Wanted(wanted.stage.but(methods=methods))])
    assert calls == {name: [*range(1, 9), "finish"] for name in calls}
    assert all(cost.tokens_per_second[0] > 0 for cost in outcome.record.result.methods.values())
    assert speed_behind(1, tokens=[0, 90, 100, 120], seconds=[0.0, 30.0, 31.0, 33.0]) == 10
    assert speed_behind(0, tokens=[0, 90], seconds=[0.0, 30.0]) == 3


def test_what_memory_and_time_depend_on_identifies_them(configured, monkeypatch: pytest.MonkeyPatch):
    plain, recomputed = (
        configured(*WORDS, f"training.gradient_checkpointing={word}").stages()[0].stage for word in ("false", "true")
    )
    assert plain.id != recomputed.id
    assert recomputed.described() == plain.described() | {"gradient_checkpointing": True}
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "NVIDIA H100 80GB HBM3")
    monkeypatch.setattr("hiplora.models.device_type", lambda model: "cuda")
    assert plain.where().endswith(f"-t{torch.get_num_threads()}-nvidia-h100-80gb-hbm3")


def test_an_option_of_a_method_is_refused(configured):
    with pytest.raises(UserError, match=r"method\.r=8 would be ignored"):
        configured(*WORDS, "method.r=8").stages()
