"""What torch keeps of a GPU between two stages, told by a torch that only says it has one."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest
import torch

from hiplora import environment
from hiplora.evaluation.decode import _cache_bytes
from hiplora.training import memory


@pytest.mark.parametrize("initialized", [True, False])
def test_freed_blocks_go_back_between_stages(monkeypatch: pytest.MonkeyPatch, initialized: bool) -> None:
    emptied: list[bool] = []
    cuda = SimpleNamespace(is_initialized=lambda: initialized, empty_cache=lambda: emptied.append(True))
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(cuda=cuda))
    environment.return_memory()
    assert emptied == [True] * initialized
    monkeypatch.delitem(sys.modules, "torch")
    environment.return_memory()
    assert "torch" not in sys.modules, "a plan or a reused record loads no torch"


def test_blocks_that_torch_holds_unused_count_as_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (100, 1000))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 700)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 300)
    parameter = SimpleNamespace(device=torch.device("cuda", 0))
    model: object = SimpleNamespace(parameters=lambda: iter([parameter]))
    assert _cache_bytes(model) == (100 + 400) // 2


@pytest.mark.skipif(not memory.RESET.exists(), reason="the peak is reset on Linux alone")
def test_a_peak_is_not_that_of_what_was_freed_before() -> None:
    chunks = [b"x" * 100_000 for _ in range(3000)]
    held = memory._resident_peak()
    chunks = chunks[-1:]  # at the top of the heap, so that free() alone gives nothing below it back
    with memory.peak_memory(torch.device("cpu")) as peak:
        assert peak() < held - 200_000_000
    assert chunks
