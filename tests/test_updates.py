"""The algebra of updates against explicit dense matrices in fp64."""

from __future__ import annotations

import pytest
import torch

from hiplora.updates import Dense, LowRank, Principal, add, inside, thin_svd

M, N, K, R = 13, 9, 4, 3


def low_rank(seed: int, rank: int = R) -> LowRank:
    g = torch.Generator().manual_seed(seed)
    return LowRank(
        torch.randn(M, rank, generator=g, dtype=torch.float64),
        torch.randn(rank, N, generator=g, dtype=torch.float64),
    )


def principal(seed: int, *, basis_seed: int = 0, residual: bool = True) -> Principal:
    g = torch.Generator().manual_seed(basis_seed)
    U, _, Vh = torch.linalg.svd(torch.randn(M, N, generator=g, dtype=torch.float64), full_matrices=False)
    phi = torch.randn(K, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return Principal(U[:, :K], phi, Vh[:K].mT, low_rank(seed) if residual else None)


def dense_formula(update: Principal) -> torch.Tensor:
    total = update.U @ torch.diag(update.phi) @ update.V.T
    return total + update.residual.B @ update.residual.A if update.residual else total


UPDATES = [low_rank(1), principal(2), principal(3, residual=False), Dense(low_rank(4).dense())]


@pytest.mark.parametrize("update", UPDATES, ids=lambda u: type(u).__name__)
def test_shape_norm_scale_and_cast_agree_with_the_dense_matrix(update):
    full = dense_formula(update) if isinstance(update, Principal) else update.dense()
    assert update.shape == (M, N) == tuple(full.shape)
    torch.testing.assert_close(update.dense(), full)
    assert update.norm() == pytest.approx(full.square().sum().sqrt().item(), rel=1e-6)
    torch.testing.assert_close(update.scaled(-0.3).dense(), -0.3 * full)
    assert update.to(torch.float32).dense().dtype == torch.float32


@pytest.mark.parametrize("update", UPDATES, ids=lambda u: type(u).__name__)
def test_the_energy_inside_is_what_projecting_both_sides_out_takes_away(update):
    U, V = principal(0, basis_seed=5).U, principal(0, basis_seed=6).V[:, :3]
    dense = update.dense()
    outside = (torch.eye(M, dtype=U.dtype) - U @ U.T) @ dense @ (torch.eye(N, dtype=V.dtype) - V @ V.T)
    expected = (dense.square().sum() - outside.square().sum()).item()
    assert inside(update, U, V) == pytest.approx(expected, rel=1e-6)


def test_a_channel_is_inside_its_own_directions_and_a_projected_residual_is_not():
    channel = principal(2, residual=False)
    U, V = channel.U, channel.V
    assert inside(channel, U, V) == pytest.approx(channel.phi.square().sum().item())
    free = low_rank(1)
    projected = LowRank(free.B - U @ (U.T @ free.B), free.A - (free.A @ V) @ V.T)
    assert inside(projected, U, V) < 1e-25 * free.norm() ** 2


def test_principal_is_exactly_a_low_rank_of_rank_k_plus_r():
    update = principal(5)
    factors = update.factors()
    assert factors.rank == update.rank == K + R
    torch.testing.assert_close(factors.dense(), dense_formula(update))


def test_adding_on_one_basis_adds_phi_and_concatenates_residuals():
    parts = [principal(6), principal(7), principal(8, residual=False)]
    total = add(parts)
    assert isinstance(total, Principal)
    assert total.rank == K + 2 * R
    assert total.U is parts[0].U
    torch.testing.assert_close(total.dense(), sum(map(dense_formula, parts)))


def test_adding_across_bases_and_forms_is_exact_in_the_tightest_form():
    mixed = [principal(6), principal(7, basis_seed=1), low_rank(1)]
    total = add(mixed)
    assert isinstance(total, LowRank)
    assert total.rank == 2 * (K + R) + R
    expected = dense_formula(mixed[0]) + dense_formula(mixed[1]) + mixed[2].dense()
    torch.testing.assert_close(total.dense(), expected)
    with_dense = add([*mixed, UPDATES[3]])
    assert isinstance(with_dense, Dense)
    torch.testing.assert_close(with_dense.dense(), expected + UPDATES[3].dense())


@pytest.mark.parametrize("rank", [3, 20], ids=["thin", "wider-than-the-matrix"])
def test_thin_svd_is_the_svd_of_the_dense_product(rank):
    update = low_rank(9, rank)
    U, S, V = thin_svd(update)
    q = min(rank, N)
    torch.testing.assert_close(S[:q], torch.linalg.svdvals(update.dense())[:q])
    torch.testing.assert_close(U @ torch.diag(S) @ V.T, update.dense())
    eye = torch.eye(S.numel(), dtype=S.dtype)
    torch.testing.assert_close(U.T @ U, eye)
    torch.testing.assert_close(V.T @ V, eye)


def test_misshapen_updates_are_refused():
    with pytest.raises(ValueError, match="LowRank expects"):
        LowRank(torch.zeros(3, 2), torch.zeros(4, 3))
    with pytest.raises(ValueError, match="Principal expects"):
        Principal(torch.zeros(3, 2), torch.zeros(3), torch.zeros(4, 2))
    with pytest.raises(ValueError, match="one shape"):
        add([low_rank(1), LowRank(torch.zeros(2, 1), torch.zeros(1, 2))])
    with pytest.raises(ValueError, match="at least one"):
        add([])
