"""Fixtures of the tuner's tests: no network, tiny models."""

from __future__ import annotations

import pytest
import torch

from tests.tuner.helpers import make_llama, make_mlp

torch.set_num_threads(1)  # on matrices this small a second thread only waits


@pytest.fixture(autouse=True)
def _isolated(shared_cache, monkeypatch):
    monkeypatch.setenv("HIPLORA_CACHE", str(shared_cache))
    torch.manual_seed(0)


@pytest.fixture
def llama():
    return make_llama()


@pytest.fixture
def mlp():
    return make_mlp()


@pytest.fixture
def ids():
    return torch.randint(0, 53, (2, 9), generator=torch.Generator().manual_seed(1))
