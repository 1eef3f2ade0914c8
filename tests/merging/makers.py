"""Small adapters with known shapes, for the tests of merging."""

from __future__ import annotations

import torch
from torch import Tensor

from hiplora.updates import Dense, LowRank, Principal

SHAPES = {"a.q_proj": (12, 10), "a.v_proj": (6, 10), "b.q_proj": (12, 10)}


def adapter(seed: int, rank: int = 2) -> dict[str, LowRank]:
    g = torch.Generator().manual_seed(seed)
    return {
        name: LowRank(torch.randn(m, rank, generator=g), torch.randn(rank, n, generator=g))
        for name, (m, n) in SHAPES.items()
    }


def hip(seed: int) -> dict[str, Principal]:
    result = {}
    for i, (name, (m, n)) in enumerate(SHAPES.items()):
        u, _, vh = torch.linalg.svd(torch.randn(m, n, generator=torch.Generator().manual_seed(100 + i)))
        phi = torch.randn(3, generator=torch.Generator().manual_seed(seed))
        result[name] = Principal(u[:, :3], phi, vh[:3].mT, adapter(seed)[name])
    return result


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def dense(updates) -> dict[str, Tensor]:
    return {name: u.dense() for name, u in updates.items()}


def one(*matrices: list[list[float]]) -> list[dict[str, Dense]]:
    return [{"w": Dense(torch.tensor(m))} for m in matrices]


def assert_same(left, right, **tolerance):
    assert set(left) == set(right)
    for name in left:
        torch.testing.assert_close(left[name], right[name], check_dtype=False, **tolerance)


def full(seed: int) -> dict[str, Dense]:
    return {n: Dense(u.dense()) for n, u in adapter(seed).items()}
