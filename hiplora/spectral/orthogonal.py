"""Orthonormal bases and the small dense steps that the recipes share."""

from __future__ import annotations

import torch
from torch import Tensor

Triplets = tuple[Tensor, Tensor, Tensor]  # U (m, k), S (k,), V (n, k)

# Below this ratio of its diagonal a Cholesky factor says that the block is too ill-conditioned for it:
# the fp64 orthogonality error is about 1e-16 / ratio².
_SAFE_DIAGONAL = 1e-4


def gaussian(rows: int, columns: int, *, like: Tensor, generator: torch.Generator) -> Tensor:
    """A (rows, columns) Gaussian block drawn on the CPU, then moved to the dtype and device of ``like``."""
    return torch.randn(rows, columns, generator=generator).to(like)


def qr(block: Tensor) -> tuple[Tensor, Tensor]:
    """Thin QR of an (m, p) block: Cholesky of the fp64 Gram matrix, Householder where that is unsafe.

    For tall blocks the Gram matrix is a matrix product, several times faster than Householder reflections.
    """
    wide = block.double()
    factor, info = torch.linalg.cholesky_ex(wide.T @ wide)
    diagonal = factor.diagonal()
    if int(info) != 0 or not bool(diagonal.min() > _SAFE_DIAGONAL * diagonal.max()):
        Q, R = torch.linalg.qr(block)
        return Q, R
    eye = torch.eye(factor.shape[0], dtype=factor.dtype, device=factor.device)
    inverse = torch.linalg.solve_triangular(factor, eye, upper=False).T
    return (wide @ inverse).to(block.dtype), factor.T.to(block.dtype)


def ritz_triplets(matrix: Tensor, right: Tensor) -> Triplets:
    """Best singular triplets (U, S, V) of an (m, n) matrix with V in the span of ``right`` (n, p)."""
    Q, R = qr(matrix @ right)
    U, S, Vh = torch.linalg.svd(R.double())
    return Q @ U.to(Q), S.to(Q), right @ Vh.T.to(Q)


def right_residual(matrix: Tensor, triplets: Triplets) -> float:
    """``max_i ‖A v_i − σ_i u_i‖ / σ_1`` of triplets (U, S, V) in descending order; 0 where σ_1 is 0."""
    U, S, V = triplets
    if S[0] == 0:
        return 0.0
    return float(torch.linalg.vector_norm(matrix @ V - U * S, dim=0).max() / S[0])


def two_sided_residual(matrix: Tensor, triplets: Triplets) -> float:
    """The larger of ``‖A v_i − σ_i u_i‖`` and ``‖Aᵀ u_i − σ_i v_i‖`` over σ_1, worst i.

    Both sides, since the side that a solver finished with is zero by construction.
    """
    U, S, V = triplets
    return max(right_residual(matrix, triplets), right_residual(matrix.T, (V, S, U)))
