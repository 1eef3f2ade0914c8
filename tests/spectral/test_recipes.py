from __future__ import annotations

import pytest
import torch
from torch import Tensor

from hiplora.errors import UserError
from hiplora.spectral import Basis, lanczos, principal_angles, resolve_recipe, truncated_svd
from tests.spectral.known import known_svd

SOLVERS = ("exact", "converged")
RECIPES = (*SOLVERS, "randomized")
SHAPES = [(500, 300), (300, 500), (64, 64), (12, 400)]


def decaying(size: int) -> Tensor:
    return torch.linspace(1, 0.1, size) ** 2 * 7


def both_residuals(weight: Tensor, basis: Basis) -> float:
    wide, U, S, V = (part.double() for part in (weight, basis.U, basis.S, basis.V))
    sides = (wide @ V - U * S, wide.T @ U - V * S)
    return max(float(side.norm(dim=0).max() / S[0]) for side in sides)


def assert_orthonormal(basis: Basis) -> None:
    for vectors in (basis.U, basis.V):
        assert torch.dist(vectors.T @ vectors, torch.eye(basis.k)) < 1e-5 * basis.k


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("recipe", SOLVERS)
def test_directions_are_those_of_the_exact_svd(recipe: str, shape: tuple[int, int]) -> None:
    weight, U, V = known_svd(*shape, decaying(min(shape)))
    basis = truncated_svd(weight, k=8, recipe=recipe, tolerance=1e-5)
    assert torch.allclose(basis.S, decaying(min(shape))[:8], rtol=1e-4)
    for k in (1, 3, 8):
        assert principal_angles(basis.U[:, :k].double(), U[:, :k])[-1] < 5e-3
        assert principal_angles(basis.V[:, :k].double(), V[:, :k])[-1] < 5e-3
    assert_orthonormal(basis)


@pytest.mark.parametrize("recipe", SOLVERS)
@pytest.mark.parametrize("shape", SHAPES)
def test_residual_is_the_worst_of_both_sides(recipe: str, shape: tuple[int, int]) -> None:
    weight, _, _ = known_svd(*shape, decaying(min(shape)))
    basis = truncated_svd(weight, k=8, recipe=recipe)
    assert basis.residual == pytest.approx(both_residuals(weight, basis), rel=1e-2, abs=1e-6)
    assert both_residuals(weight, basis) <= 1e-3


@pytest.mark.parametrize("recipe", RECIPES)
def test_largest_entry_of_each_left_vector_is_positive(recipe: str) -> None:
    weight, _, _ = known_svd(90, 70, decaying(70))
    U = truncated_svd(weight, k=10, recipe=recipe).U
    assert (U.gather(0, U.abs().argmax(0, keepdim=True)) > 0).all()


@pytest.mark.parametrize("multiplicity", [20, 60])
@pytest.mark.parametrize("recipe", SOLVERS)
def test_no_multiplicity_hides_a_direction(recipe: str, multiplicity: int) -> None:
    # A Krylov space from a block narrower than the multiplicity would return copies of 0.5 among the leading 16.
    values = torch.cat([torch.ones(multiplicity), torch.full((300 - multiplicity,), 0.5)])
    weight, U, V = known_svd(300, 320, values)
    basis = truncated_svd(weight, k=16, recipe=recipe)
    assert torch.allclose(basis.S, torch.ones(16), atol=1e-4)
    for found, true in ((basis.U.double(), U[:, :multiplicity]), (basis.V.double(), V[:, :multiplicity])):
        assert torch.dist(true @ (true.T @ found), found) < 1e-2


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("rank", [0, 1, 5, 40])
def test_rank_deficient_weights_keep_an_orthonormal_basis(recipe: str, rank: int) -> None:
    weight = known_svd(400, 250, decaying(rank))[0] if rank else torch.zeros(400, 250)
    basis = truncated_svd(weight, k=32, recipe=recipe)
    assert_orthonormal(basis)
    assert basis.S[rank:].abs().max() < 1e-4 if rank < 32 else basis.S.min() > 0
    if rank <= 32:
        assert torch.dist((basis.U * basis.S) @ basis.V.T, weight) < 1e-4
        assert basis.residual < 1e-5 or recipe == "randomized"  # which does not measure it


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_diagonal_of_low_rank_does_not_end_the_iteration(recipe: str) -> None:
    # Exact zeros beside unit vectors: every made-up direction could fall back into the space already known.
    weight = torch.zeros(400, 300)
    weight[:10, :10] = torch.eye(10)
    basis = truncated_svd(weight, k=24, recipe=recipe)
    assert_orthonormal(basis)
    assert torch.allclose(basis.S, (torch.arange(24) < 10).float(), atol=1e-5)


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_direction_of_a_small_matrix(recipe: str) -> None:
    weight, _, _ = known_svd(9, 30, decaying(9))
    basis = truncated_svd(weight, k=9, recipe=recipe)
    assert torch.allclose((basis.U * basis.S) @ basis.V.T, weight, atol=1e-5)


def test_randomized_is_as_good_as_torchs() -> None:
    weight, _, _ = known_svd(300, 400, decaying(300))
    ours = truncated_svd(weight, k=32, recipe="randomized")
    torch.manual_seed(0)
    U, S, V = torch.svd_lowrank(weight, q=40, niter=2)
    theirs = torch.dist(weight, (U[:, :32] * S[:32]) @ V[:, :32].T)
    best = decaying(300)[32:].norm()
    assert best <= torch.dist(weight, (ours.U * ours.S) @ ours.V.T) < 1.01 * theirs


@pytest.mark.parametrize("recipe", RECIPES)
def test_seed_dtype_and_workspace(recipe: str) -> None:
    weight = known_svd(300, 200, decaying(200))[0].bfloat16()
    plain = truncated_svd(weight.float(), k=12, recipe=recipe, seed=3)
    reused = truncated_svd(weight, k=12, recipe=recipe, seed=3, workspace=torch.full((70000,), float("nan")))
    assert torch.equal(plain.U, reused.U)
    other = truncated_svd(weight, k=12, recipe=recipe, seed=4)
    assert torch.equal(plain.U, other.U) == (recipe == "exact")


def test_auto_is_exact_up_to_a_size() -> None:
    assert resolve_recipe((2048, 9000), recipe="auto", exact_up_to=2048) == "exact"
    assert resolve_recipe((2049, 9000), recipe="auto", exact_up_to=2048) == "converged"
    assert resolve_recipe((4096, 4096), recipe="randomized", exact_up_to=2048) == "randomized"


def test_bad_input_is_refused_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    weight = known_svd(200, 170, decaying(170))[0]
    with pytest.raises(UserError, match="from 1 to 170"):
        truncated_svd(weight, k=171)
    with pytest.raises(UserError, match="from 1 to 170"):
        truncated_svd(weight, k=0)
    with pytest.raises(UserError, match="choose one of auto, exact"):
        truncated_svd(weight, k=2, recipe="fast")
    with pytest.raises(UserError, match="NaN"):
        truncated_svd(weight / 0, k=2)
    with pytest.raises(UserError, match="matrix"):
        truncated_svd(weight[0], k=2)
    monkeypatch.setattr(lanczos, "_MAX_PRODUCTS", 8)
    with pytest.raises(UserError, match="larger tolerance"):
        truncated_svd(weight, k=8, recipe="converged", tolerance=1e-12)


def test_first_keeps_the_leading_directions() -> None:
    basis = truncated_svd(known_svd(30, 20, decaying(20))[0], k=8)
    assert torch.equal(basis.first(3).U, basis.U[:, :3])
    assert basis.first(3).S.shape == (3,)
    with pytest.raises(UserError, match="from 1 to 8"):
        basis.first(9)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("recipe", RECIPES)
def test_a_gpu_finds_the_same_directions(recipe: str) -> None:
    weight = known_svd(500, 300, decaying(300))[0]
    here = truncated_svd(weight, k=8, recipe=recipe)
    there = truncated_svd(weight.cuda(), k=8, recipe=recipe)
    assert there.U.is_cuda
    assert torch.allclose(here.U, there.U.cpu(), atol=1e-3)
