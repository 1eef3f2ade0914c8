"""Orthonormal bases and the small dense steps that the recipes share."""

from __future__ import annotations

import torch
from torch import Tensor

Triplets = tuple[Tensor, Tensor, Tensor]  # U (m, k), S (k,), V (n, k)


def gaussian(rows: int, columns: int, *, like: Tensor, generator: torch.Generator) -> Tensor:
    """A (rows, columns) Gaussian block, drawn on the CPU and moved to the dtype and device of ``like``."""
    return torch.randn(rows, columns, generator=generator).to(like)


def ritz_triplets(matrix: Tensor, right: Tensor) -> Triplets:
    """Best triplets U (m, p), S (p,), V (n, p) of an (m, n) matrix with V in the span of ``right`` (n, p).

    ``right`` has orthonormal columns.
    """
    Q, R = torch.linalg.qr(matrix @ right)
    U, S, Vh = torch.linalg.svd(R.double())
    return Q @ U.to(Q), S.to(Q), right @ Vh.T.to(Q)


def _right_residual(matrix: Tensor, triplets: Triplets) -> float:
    """``max_i ‖A v_i − σ_i u_i‖ / σ_1`` of triplets (U, S, V) in descending order; 0 if σ_1 is 0."""
    U, S, V = triplets
    if S[0] == 0:
        return 0.0
    return float(torch.linalg.vector_norm(matrix @ V - U * S, dim=0).max() / S[0])


def two_sided_residual(matrix: Tensor, triplets: Triplets) -> float:
    """``max_i max(‖A v_i − σ_i u_i‖, ‖Aᵀ u_i − σ_i v_i‖) / σ_1`` of triplets (U, S, V).

    Both sides are needed: the residual of the side that a solver computed last is zero by construction.
    """
    U, S, V = triplets
    return max(_right_residual(matrix, triplets), _right_residual(matrix.T, (V, S, U)))
