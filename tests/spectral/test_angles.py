from __future__ import annotations

import math

import pytest
import torch

from hiplora.errors import UserError
from hiplora.spectral import principal_angles, sketch, truncated_svd
from tests.spectral.known import haar, known_svd


def test_angles_are_accurate_from_tiny_to_right() -> None:
    angles = torch.tensor([0.0, 1e-12, 1e-7, 0.3, math.pi / 4, 1.2, math.pi / 2 - 1e-9, math.pi / 2]).double()
    k = len(angles)
    frame = haar(40, 2 * k, seed=1)
    X, across = frame[:, :k], frame[:, k:]
    Y = X * angles.cos() + across * angles.sin()
    mixed = Y @ haar(k, k, seed=2) * 3  # another, not normalised basis of the same span
    for basis in (Y, mixed):
        assert torch.allclose(principal_angles(X, basis), angles, rtol=1e-6, atol=1e-14)


def test_angles_refuse_different_shapes() -> None:
    with pytest.raises(UserError, match="one shape"):
        principal_angles(torch.eye(4)[:, :2], torch.eye(4)[:, :3])


def test_sketch_tolerates_rounding_and_refuses_another_backbone() -> None:
    values = torch.linspace(1, 0.1, 200)
    weight, other = known_svd(300, 200, values)[0], known_svd(300, 200, values, seed=9)[0]
    exact = truncated_svd(weight, k=8, recipe="exact")
    again = truncated_svd(weight, k=8, recipe="converged", tolerance=1e-6)
    foreign = truncated_svd(other, k=8, recipe="exact")
    for side in (0, 1):
        assert (sketch(exact, 8)[side] - sketch(again, 8)[side]).abs().max() < 0.02
        assert (sketch(exact, 8)[side] - sketch(foreign, 8)[side]).abs().max() > 0.2
        assert torch.equal(sketch(exact, 8)[side][:5], sketch(exact.first(5), 5)[side])
        assert sketch(exact, 8)[side].dtype == torch.float32
