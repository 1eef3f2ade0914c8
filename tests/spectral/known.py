"""Matrices with a known SVD."""

from __future__ import annotations

import torch
from torch import Tensor


def haar(rows: int, columns: int, seed: int) -> Tensor:
    """Orthonormal columns, uniformly distributed, fp64."""
    generator = torch.Generator().manual_seed(seed)
    return torch.linalg.qr(torch.randn(rows, columns, generator=generator, dtype=torch.float64))[0]


def known_svd(rows: int, columns: int, values: Tensor, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """The fp32 matrix with these singular values, and its exact U and V in fp64."""
    U, V = haar(rows, len(values), seed), haar(columns, len(values), seed + 1)
    return ((U * values.double()) @ V.T).float(), U, V
