"""The updates of adapters that stay in memory, because merge instances share them."""

from __future__ import annotations

from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from hiplora.stages import sources
from hiplora.stages.sources import trained_updates
from hiplora.updates import Deferred, Dense


def test_updates_stay_in_memory_up_to_a_number_of_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    def found(name: str) -> Any:
        train: Any = SimpleNamespace(
            id=name, on=lambda *_: nullcontext(), method=SimpleNamespace(updates=lambda _: made())
        )
        return trained_updates(train, backbone, job)

    def made() -> dict[str, Dense]:
        return {"w": Dense(torch.zeros(4, 4))}  # 64 bytes

    backbone: Any = SimpleNamespace(model=None)
    job: Any = SimpleNamespace(needs={name: SimpleNamespace(digest="") for name in "abc"})
    monkeypatch.setattr(sources, "_HELD", {})
    monkeypatch.setattr(sources, "KEPT_BYTES", 128)
    a, b = found("a"), found("b")
    assert (found("a"), found("b")) == (a, b)
    c = found("c")
    assert found("b") is b
    assert found("c") is c
    assert found("a") is not a
    monkeypatch.setattr(sources, "KEPT_BYTES", 1)
    assert found("b") is not b
    assert len(sources._HELD) == 1


def test_an_update_that_is_never_kept_counts_for_nothing_and_is_not_formed() -> None:
    assert Deferred(lambda: pytest.fail("formed"), (4, 4)).nbytes == 0
