"""Random orthonormal directions, the control for singular directions."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping

import torch
from torch import Tensor

from hiplora.errors import UserError
from hiplora.spectral.orthogonal import ieee_products
from hiplora.spectral.recipes import Basis


@ieee_products()
def random_bases(weights: Mapping[str, Tensor], *, k: int, seed: int) -> dict[str, Basis]:
    """For every (m, n) weight W, U (m, k) and V (n, k) with uniformly distributed orthonormal columns; fp32.

    They depend on the seed, k and the weight's name and shape alone, not on the order, the device or the number of
    threads. S_i is u_iᵀ W v_i, which is σ_i for singular directions; it distinguishes one backbone's weights from
    another's.

    Raises:
        UserError: k exceeds min(m, n).
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # LAPACK's last bits depend on their number, and training amplifies them
    try:
        return {name: _drawn(name, weight, k=k, seed=seed) for name, weight in weights.items()}
    finally:
        torch.set_num_threads(threads)


def _drawn(name: str, weight: Tensor, *, k: int, seed: int) -> Basis:
    if not 1 <= k <= min(weight.shape):
        raise UserError(
            f"{name}: k = {k} is out of range for a {weight.shape[0]}×{weight.shape[1]} matrix; "
            f"choose k from 1 to {min(weight.shape)}."
        )
    own = hashlib.sha256(f"{seed} {name}".encode()).digest()[:8]
    generator = torch.Generator().manual_seed(int.from_bytes(own, "big") >> 1)  # manual_seed takes 63 bits
    U, V = (_orthonormal(rows, k, generator).to(weight.device) for rows in weight.shape)
    S = ((weight.detach().float() @ V) * U).sum(dim=0)
    return Basis(U, S, V, math.nan)


def _orthonormal(rows: int, columns: int, generator: torch.Generator) -> Tensor:
    """Q of a Gaussian block's QR in fp64 with positive diagonal of R, which makes Q unique and uniform; fp32."""
    Q, R = torch.linalg.qr(torch.randn(rows, columns, generator=generator, dtype=torch.float64))
    return (Q * R.diagonal().sign()).float()
