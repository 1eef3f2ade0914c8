"""Where an update lies: closed forms, and a backbone's own singular directions."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from hiplora.spectral.recipes import Basis
from hiplora.stages import energy
from hiplora.updates import Dense, LowRank, Principal, Update

SHAPES = {"q": (96, 80), "v": (40, 80)}


def directions(seed: int = 0) -> dict[str, Basis]:
    """Random orthonormal ones, more than are looked at."""
    found = {}
    for number, (name, (m, n)) in enumerate(SHAPES.items()):
        generator = torch.Generator().manual_seed(seed + number)
        U, S, Vh = torch.linalg.svd(torch.randn(m, n, generator=generator), full_matrices=False)
        found[name] = Basis(U[:, :40], S[:40], Vh[:40].mT, 0.0)
    return found


def drawn(seed: int, rank: int = 4) -> dict[str, LowRank]:
    g = torch.Generator().manual_seed(seed)
    return {
        n: LowRank(torch.randn(m, rank, generator=g), torch.randn(rank, k, generator=g)) for n, (m, k) in SHAPES.items()
    }


def test_shares_are_those_of_the_dense_matrices() -> None:
    updates, bases = drawn(1), directions()
    outside = total = 0.0
    for name, update in updates.items():
        U, V, dense = bases[name].U[:, :32].double(), bases[name].V[:, :32].double(), update.dense().double()
        left, right = (torch.eye(len(side)).double() - side @ side.T for side in (U, V))
        outside += float((left @ dense @ right).square().sum())
        total += float(dense.square().sum())
    found = energy.measures(updates, bases)
    assert found["update_norm"] == pytest.approx(math.sqrt(total), rel=1e-5)
    assert found["top_share"] == pytest.approx(1 - outside / total, rel=1e-5)
    assert found["channel_share"] == 0
    full: dict[str, Update] = {name: Dense(update.dense()) for name, update in updates.items()}
    assert energy.measures(full, bases) == pytest.approx(found, rel=1e-5)


@pytest.mark.parametrize("rank", [1, 8])
def test_the_share_of_a_random_update_is_its_mean_over_draws(rank: int) -> None:
    bases = directions()
    found = [energy.measures(drawn(seed, rank), bases) for seed in range(200)]
    errors = [each["top_share"] - each["top_share_random"] for each in found]
    assert sum(errors) / 200 == pytest.approx(0, abs=0.01)
    assert energy.random_share(drawn(0, rank)) != energy.random_share(drawn(1, rank)), "matrices weigh by their energy"


def test_the_channels_share() -> None:
    bases = directions()
    updates: dict[str, Update] = {}
    for name, update in drawn(2).items():
        U, V = bases[name].U[:, :32], bases[name].V[:, :32]
        beside = LowRank(update.B - U @ (U.T @ update.B), update.A - (update.A @ V) @ V.T)
        updates[name] = Principal(U, torch.full((32,), 0.5), V, beside)
    channel = 2 * 32 * 0.25
    residual = sum(update.residual.norm() ** 2 for update in updates.values())  # type: ignore[union-attr]
    found = energy.measures(updates, bases)
    assert found["channel_share"] == pytest.approx(channel / (channel + residual), rel=1e-5)
    assert found["top_share"] == pytest.approx(found["channel_share"], rel=1e-5)
    assert energy.measures(updates, None).keys() == {"update_norm", "channel_share"}
    nothing = {"q": LowRank(torch.zeros(96, 2), torch.ones(2, 80))}
    assert energy.measures(nothing, bases) == {"update_norm": 0}


def test_gains_are_binned_by_the_singular_values_of_the_backbone() -> None:
    """Directions of all matrices together; φ is a function of σ here, so that every bin is known."""
    model = torch.nn.ModuleDict({name: torch.nn.Linear(n, m, bias=False) for name, (m, n) in SHAPES.items()})
    updates: dict[str, Update] = {}
    sigma: list[float] = []
    for name, layer in model.items():
        U, S, Vh = torch.linalg.svd(layer.get_parameter("weight").detach().double(), full_matrices=False)
        phi = torch.where(torch.arange(32) % 2 == 0, S[:32], -3 * S[:32])
        updates[name] = Principal(U[:, :32].float(), phi.float(), Vh[:32].mT.float())
        sigma += [float(value) for value in S[:32]]
    found = energy.gains(model, updates)
    assert [each.n for each in found] == [7, 7, 7, 7, 6, 6, 6, 6, 6, 6]
    assert found[0].sigma == pytest.approx(sum(sorted(sigma)[:7]) / 7, rel=1e-5)
    assert [each.sigma for each in found] == sorted(each.sigma for each in found)
    total = sum(each.n * each.size for each in found), sum(each.n * each.shift for each in found)
    phis = [float(phi) for update in updates.values() for phi in update.phi]  # type: ignore[union-attr]
    assert total == pytest.approx((sum(map(abs, phis)), sum(phis)), rel=1e-5)
    few = {name: Principal(u.U[:, :3], u.phi[:3], u.V[:, :3]) for name, u in updates.items()}  # type: ignore[union-attr]
    assert [each.n for each in energy.gains(model, few)] == [1] * 6
    assert energy.gains(model, dict(drawn(1))) == []


def test_shares_of_directions_that_depend_on_the_recipe_are_left_out() -> None:
    """The randomised recipe gives no residual; fewer directions than are looked at are another measure."""
    updates, bases = drawn(1), directions()
    plain = {"update_norm", "channel_share"}
    for name, basis in bases.items():
        for other in (replace(basis, residual=math.nan), replace(basis, residual=0.1), basis.first(16)):
            assert energy.measures(updates, bases | {name: other}).keys() == plain
            assert energy.top_share(updates, bases | {name: other}) is None
        assert energy.measures(updates, bases | {name: replace(basis, residual=1e-3)}) == energy.measures(
            updates, bases
        )
