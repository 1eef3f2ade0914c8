"""Fixtures of the tuner's tests: tiny models."""

from __future__ import annotations

import pytest
import torch

from tests.tuner.helpers import make_llama, make_mlp


@pytest.fixture(autouse=True)
def _seeded():
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
