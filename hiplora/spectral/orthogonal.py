"""Orthonormal bases and the small dense steps that the recipes share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

Triplets = tuple[Tensor, Tensor, Tensor]  # U (m, k), S (k,), V (n, k)


@contextmanager
def ieee_products() -> Iterator[None]:
    """A context, or decorator, in which fp32 matrix products are those of IEEE even if TF32 is switched on.

    With TF32 (``tf32=True``, ``torch.set_float32_matmul_precision("high")``) directions would be orthonormal to 1e-3
    only, and the residual that is measured would have the same error. The setting belongs to the whole process.
    """
    every: Any = torch.backends  # torch's types lack these settings
    backends = (every.cuda.matmul, every.mkldnn.matmul)
    # One that follows torch.backends is to follow it again.
    own = [backend.fp32_precision for backend in backends]
    before = ["none" if value == every.fp32_precision else value for value in own]
    try:
        for backend in backends:
            backend.fp32_precision = "ieee"
        yield
    finally:
        for backend, precision in zip(backends, before, strict=True):
            backend.fp32_precision = precision


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
