"""Random directions: orthonormal, and a function of seed and name alone."""

from __future__ import annotations

import pytest
import torch

from hiplora.errors import UserError
from hiplora.spectral.drawn import random_bases

WEIGHTS = {"q": torch.randn(40, 30, generator=torch.Generator().manual_seed(1)), "k": torch.ones(20, 30)}


def test_they_are_orthonormal_and_say_what_they_are_of_the_weight() -> None:
    for name, basis in random_bases(WEIGHTS, k=7, seed=0).items():
        weight = WEIGHTS[name]
        assert (basis.U.shape, basis.V.shape) == ((weight.shape[0], 7), (weight.shape[1], 7))
        for side in (basis.U, basis.V):
            torch.testing.assert_close(side.T @ side, torch.eye(7), rtol=0, atol=1e-6)
        torch.testing.assert_close(basis.S, (basis.U.T @ weight @ basis.V).diagonal())


def test_neither_order_nor_the_other_weights_nor_their_values_matter() -> None:
    torch.manual_seed(0)
    first = random_bases(WEIGHTS, k=7, seed=0)
    torch.manual_seed(1)
    alone = random_bases({"k": WEIGHTS["k"].bfloat16() * 2}, k=7, seed=0)["k"]
    assert torch.equal(alone.U, first["k"].U)
    assert torch.equal(alone.V, first["k"].V)


def test_another_name_or_seed_draws_others() -> None:
    weight = WEIGHTS["q"]
    first = random_bases({"a": weight, "b": weight}, k=7, seed=0)
    others = [first["b"], random_bases({"a": weight}, k=7, seed=1)["a"]]
    assert all((first["a"].U.T @ other.U).abs().max() < 0.9 for other in others)
    assert (first["a"].V.T @ first["a"].U[:30]).abs().max() < 0.9  # the sides of one matrix are drawn apart


def test_more_directions_than_the_matrix_has_are_refused() -> None:
    with pytest.raises(UserError, match=r"k: k = 21 is out of range .*20×30.* from 1 to 20"):
        random_bases(WEIGHTS, k=21, seed=0)
