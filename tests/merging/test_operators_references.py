"""Operators against independent dense references, and against each other where two must agree."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from hiplora.merging import merge
from hiplora.updates import LowRank, Principal
from tests.merging.makers import SHAPES, adapter, assert_same, dense, hip


def ties_reference(tasks: list[dict[str, Tensor]], density: float) -> dict[str, Tensor]:
    """Flat vectors, a sort, and one loop over entries; nothing shared with the package."""
    names = list(tasks[0])
    vectors = [torch.cat([t[n].flatten() for n in names]).tolist() for t in tasks]
    for v in vectors:
        cut = sorted(map(abs, v), reverse=True)[round(density * len(v)) - 1]
        v[:] = [x if abs(x) >= cut else 0.0 for x in v]
    merged = []
    for entries in zip(*vectors, strict=True):
        agree = [x for x in entries if x * sum(entries) > 0]
        merged.append(sum(agree) / len(agree) if agree else 0.0)
    pieces = torch.tensor(merged).split([tasks[0][n].numel() for n in names])
    return {n: p.view(tasks[0][n].shape) for n, p in zip(names, pieces, strict=True)}


def tsvm_reference(tasks: list[Tensor], ranks: list[int]) -> Tensor:
    us, ss, vs = [], [], []
    for x, r in zip(tasks, ranks, strict=True):
        u, s, vh = torch.linalg.svd(x.double(), full_matrices=False)
        k = min(min(x.shape) // len(tasks), r)
        us, ss, vs = [*us, u[:, :k]], [*ss, s[:k]], [*vs, vh[:k].T]
    left, right = ((lambda p, _, q: p @ q)(*torch.linalg.svd(torch.cat(x, 1), full_matrices=False)) for x in (us, vs))
    return left @ torch.diag(torch.cat(ss)) @ right.T


def knots_reference(tasks: list[dict[str, Tensor]], density: float) -> dict[str, Tensor]:
    bases, rows = {}, [{} for _ in tasks]
    for n in tasks[0]:
        u, s, vh = torch.linalg.svd(torch.cat([t[n].double() for t in tasks], dim=1), full_matrices=False)
        bases[n] = u[:, s > 1e-5]
        for row, piece in zip(rows, (s[:, None] * vh)[s > 1e-5].chunk(len(tasks), dim=1), strict=True):
            row[n] = piece
    merged = ties_reference(rows, density)
    return {n: bases[n] @ merged[n].double() for n in merged}


def core_space_reference(tasks: list[dict[str, LowRank]], density: float) -> dict[str, Tensor]:
    """The published method on one matrix after the other: full SVDs of the raw stacks, TIES on the flat cores."""
    merged = {}
    for n in tasks[0]:
        B, A = ([getattr(t[n], side).double() for t in tasks] for side in "BA")
        left = torch.linalg.svd(torch.cat(B, dim=1), full_matrices=False)[0]
        right = torch.linalg.svd(torch.cat(A, dim=0), full_matrices=False)[2]
        core = ties_reference([{n: left.T @ b @ a @ right.T} for b, a in zip(B, A, strict=True)], density)
        merged[n] = left @ core[n].double() @ right
    return merged


@pytest.mark.parametrize("ranks", [(2, 2), (1, 3), (2, 1, 1)])
def test_core_space_equals_the_dense_reference(ranks):
    tasks = [{n: u.scaled(3.0**s) for n, u in adapter(s, r).items()} for s, r in enumerate(ranks)]
    expected = core_space_reference(tasks, 0.5)
    assert_same(dense(merge(tasks, "core_space", density=0.5).updates), expected, rtol=1e-4, atol=1e-5)


def test_ties_equals_the_dense_reference():
    tasks = [adapter(s) for s in (1, 2, 3)]
    assert_same(dense(merge(tasks, "ties").updates), ties_reference([dense(t) for t in tasks], 0.2))


def test_tsvm_equals_the_dense_reference():
    tasks, ranks = [adapter(1, 1), adapter(2, 2), adapter(3, 2)], [1, 2, 2]
    merged = dense(merge(tasks, "tsvm").updates)
    expected = {n: tsvm_reference([t[n].dense() for t in tasks], ranks) for n in merged}
    assert_same(merged, expected, rtol=1e-4, atol=1e-5)


def test_tsvm_does_not_move_under_rounding_noise():
    tasks = [adapter(s) for s in (1, 2, 3)]
    noisy = [{n: LowRank(u.B * (1 + 1e-7), u.A) for n, u in t.items()} for t in tasks]
    extra = [
        {
            n: LowRank(torch.cat([u.B, 1e-8 * u.B[:, :1].flip(0)], 1), torch.cat([u.A, u.A[:1].flip(1)]))
            for n, u in t.items()
        }
        for t in noisy
    ]
    assert_same(dense(merge(tasks, "tsvm").updates), dense(merge(extra, "tsvm").updates), rtol=1e-4, atol=1e-5)


def test_knots_equals_the_dense_reference():
    tasks = [adapter(s, r) for s, r in ((1, 2), (2, 3), (3, 1))]
    expected = knots_reference([dense(t) for t in tasks], 0.2)
    assert_same(dense(merge(tasks, "knots").updates), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["core_space", "knots"])
def test_shared_spaces_with_addition_are_addition(name):
    tasks = [adapter(1, 1), adapter(2, 3), hip(3)]
    expected = dense(merge(tasks, "addition").updates)
    assert_same(dense(merge(tasks, name, rule="addition").updates), expected, rtol=1e-4, atol=1e-5)


def test_core_space_sees_directions_that_hip_adapters_share_once():
    """u_i φ_i of two adapters is parallel only up to float32; a core with the rounding in it would trim otherwise."""
    from hiplora.merging.core_space import core_space

    tasks = [hip(seed) for seed in range(3)]
    for name in SHAPES:
        updates = [task[name] for task in tasks]
        exact = [update.to(torch.float64).factors() for update in updates]
        sides = [torch.cat([f.B for f in exact], dim=1), torch.cat([f.A.mT for f in exact], dim=1)]
        left, cores, right = core_space(updates)
        assert cores[0].shape == tuple(int(torch.linalg.matrix_rank(side, rtol=1e-9)) for side in sides)
        for core, update in zip(cores, updates, strict=True):
            torch.testing.assert_close((left @ core @ right.mT).float(), update.dense())


@pytest.mark.parametrize("ranks", [(2, 2, 2), (1, 3, 2)])
def test_core_space_with_tsv_is_tsvm(ranks):
    tasks = [adapter(s, r) for s, r in enumerate(ranks)]
    expected = dense(merge(tasks, "tsvm").updates)
    assert_same(dense(merge(tasks, "core_space", rule="tsvm").updates), expected, rtol=1e-4, atol=1e-5)


def test_hip_adapters_add_in_phi_and_equal_dense_addition():
    tasks = [hip(1), hip(2), hip(3)]
    merged = merge(tasks, "addition").updates
    assert all(isinstance(u, Principal) and u.phi.numel() == 3 and u.residual.rank == 6 for u in merged.values())
    assert_same(dense(merged), {n: sum(t[n].dense() for t in tasks) for n in SHAPES}, rtol=1e-5, atol=1e-5)
