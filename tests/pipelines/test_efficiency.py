"""Efficiency: turns go round, a stopped measurement goes on, the backbone stays as it was."""

from __future__ import annotations

import pytest
import torch

from hiplora import models
from hiplora.stages.efficiency import Efficiency
from tests.pipelines.conftest import Run

WORDS = ["pipeline=efficiency", "efficiency.steps=2", "efficiency.warmup=1", "efficiency.repetitions=2"]


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
    for name, value in models.load(config.model).model.state_dict().items():
        assert torch.equal(value, before[name])
