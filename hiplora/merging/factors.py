"""Linear algebra on thin factors, in float64: bases, singular triplets and polar factors without a dense ΔW."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from hiplora.updates import Dense, LowRank, Update, thin_svd, zero

RANK_TOLERANCE = 1e-6
"""Directions below this share of the largest singular value are rounding noise of a float32 update."""

Triplets = tuple[Tensor, Tensor, Tensor]


def factored(update: Update) -> LowRank:
    """The exact factors of an update; ``checked`` has refused full-rank ones before."""
    assert not isinstance(update, Dense)
    return update.factors()


def thin(update: Update) -> LowRank:
    """The exact factors of an update in float64."""
    return factored(update).to(torch.float64)


def column_basis(stack: Tensor) -> tuple[Tensor, Tensor]:
    """Left singular vectors (m, q) and values (q,) of a stack (m, R); q is its numerical rank, but at least 1."""
    q, r = torch.linalg.qr(stack)
    u, s, _ = torch.linalg.svd(r, full_matrices=False)
    keep = max(1, _count(s, RANK_TOLERANCE))
    return q @ u[:, :keep], s[:keep]


def span(stack: Tensor) -> Tensor:
    """Orthonormal basis (m, q) of the columns of a stack (m, R), whatever their lengths.

    Columns are normalised first, so that a short one counts as much as a long one, and two that were parallel before
    they were rounded to float32 count once.
    """
    lengths = stack.norm(dim=0)
    return column_basis(stack / lengths.where(lengths > 0, 1))[0]


def left_vectors(stack: Tensor) -> Tensor:
    """Left singular vectors (m, q) of the raw stack (m, R), within the space that :func:`span` finds.

    The vectors and their order are those of the raw stack, so that an element-wise rule works in the method's own
    basis. Normalised columns only decide which directions count.
    """
    basis = span(stack)
    return basis @ torch.linalg.svd(basis.mT @ stack, full_matrices=False)[0]


def triplets(update: LowRank, limit: int) -> Triplets:
    """Leading singular triplets U (m, k), S (k,), V (n, k) of B A with k = min(limit, numerical rank)."""
    u, s, v = thin_svd(update)
    keep = min(limit, _count(s, RANK_TOLERANCE))
    return u[:, :keep], s[:keep], v[:, :keep]


def orthogonalised_sum(tasks: Sequence[Triplets], shape: tuple[int, int]) -> LowRank:
    """TSV-M's merge of triplets: polar(U) Σ polar(V)ᵀ with U, Σ, V concatenated over tasks."""
    u, s, v = (torch.cat([t[i] for t in tasks], dim=-1) for i in range(3))
    if s.numel() == 0:
        return zero(shape).to(u)
    return LowRank(polar(u) * s, polar(v).mT)


def polar(x: Tensor) -> Tensor:
    """The polar factor (m, K) of x: X (XᵀX)^(−1/2), the nearest matrix with orthonormal columns if x has full rank.

    If columns depend on each other, the root is a pseudo-inverse: directions outside the numerical range of x stay
    0 instead of being filled with arbitrary vectors, so that the result is unique.
    """
    q, r = torch.linalg.qr(x)
    u, s, vh = torch.linalg.svd(r, full_matrices=False)
    keep = _count(s, RANK_TOLERANCE)
    return q @ (u[:, :keep] @ vh[:keep])


def _count(s: Tensor, tolerance: float) -> int:
    """Number of singular values above tolerance · largest; 0 for a zero matrix."""
    if s.numel() == 0 or s[0] == 0:
        return 0
    return int((s > tolerance * s[0]).sum())
