"""Principal angles between subspaces, and a small checksum of a basis."""

from __future__ import annotations

import torch
from torch import Tensor

from hiplora.errors import UserError
from hiplora.spectral.recipes import Basis

_SKETCH_SEED = 20260417


def principal_angles(X: Tensor, Y: Tensor) -> Tensor:
    """Principal angles between the spans of X (m, k) and Y (m, k): (k,) in radians, ascending, fp64.

    X and Y need full column rank, not orthonormal columns. Björck and Golub (1973), equation 13: the arc cosine is
    inaccurate for angles below 1e-8 and the arc sine near π/2, so each is used on one side of π/4.

    Raises:
        UserError: X and Y have different shapes.
    """
    if X.shape != Y.shape:
        raise UserError(f"principal angles need two bases of one shape, not {tuple(X.shape)} and {tuple(Y.shape)}.")
    QX, QY = (torch.linalg.qr(basis.double())[0] for basis in (X, Y))
    cosines = torch.linalg.svdvals(QX.T @ QY).clamp(max=1.0)
    sines = torch.linalg.svdvals(QY - QX @ (QX.T @ QY)).flip(0).clamp(max=1.0)
    return torch.where(cosines**2 < 0.5, torch.acos(cosines), torch.asin(sines))


def sketch(basis: Basis, k: int) -> tuple[Tensor, Tensor]:
    """Products of the first k columns of U and of V with one seeded Gaussian vector each: two tensors (k,), fp32.

    Entries are N(0, 1) for unit columns, and turning a direction by ε radians changes its entry by about ε. So a
    recomputed basis agrees to within rounding, and the basis of another backbone does not.
    """
    generator = torch.Generator().manual_seed(_SKETCH_SEED)
    kept = basis.first(k)
    sides = []
    for vectors in (kept.U, kept.V):
        gaussian = torch.randn(vectors.shape[0], generator=generator, dtype=torch.float64)
        sides.append((gaussian @ vectors.detach().cpu().double()).float())
    return sides[0], sides[1]
