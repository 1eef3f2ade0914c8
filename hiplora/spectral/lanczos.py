"""Block Golub-Kahan-Lanczos bidiagonalisation with thick restarts and full reorthogonalisation.

Golub, Luk and Overton (1981) for the block recurrence, Baglama and Reichel (2005) for the restart. The block
is wider than the number of wanted triplets, so that no multiplicity of a singular value hides a direction.
"""

from __future__ import annotations

import torch
from torch import Tensor

from hiplora.errors import UserError
from hiplora.spectral.orthogonal import Triplets, gaussian, ritz_triplets

_BLOCKS = 5  # blocks in the Krylov space before it is restarted from its best ``block`` Ritz vectors
_MAX_PRODUCTS = 400  # blocks multiplied before giving up: convergence takes 5 to 20 on real weights
_MARGIN = 0.5  # stop at half the tolerance, so that fp32 rounding cannot lift the measured residual above it
_WEAK, _DEAD = 1e-2, 1e-6  # remaining share of a new column after the known directions are removed


def converged_triplets(tall: Tensor, *, k: int, block: int, tolerance: float, generator: torch.Generator) -> Triplets:
    """The k leading triplets U (m, k), S (k,), V (n, k) of a tall (m, n) fp32 matrix, residual ≤ tolerance · σ_1.

    The residual is the two-sided one. A matrix that a Krylov space of ``_BLOCKS`` blocks would fill gets a full SVD.

    Raises:
        UserError: the tolerance is not reached, for instance because it is below fp32 rounding.
    """
    n = tall.shape[1]
    if _BLOCKS * block >= n:
        U, S, V = ritz_triplets(tall, torch.eye(n, dtype=tall.dtype, device=tall.device))
        return U[:, :k], S[:k], V[:, :k]
    space = _Space(tall, gaussian(n, block, like=tall, generator=generator), generator)
    for _ in range(_MAX_PRODUCTS):
        remainder = space.next_right_block()
        left, S, right = torch.linalg.svd(space.projected)
        estimate = torch.linalg.vector_norm(remainder.double() @ left[-block:, :k], dim=0).max()
        if estimate <= _MARGIN * tolerance * S[0]:
            return space.left @ left[:, :k].to(tall), S[:k].to(tall), space.right @ right[:k].T.to(tall)
        if space.right.shape[1] >= _BLOCKS * block:
            space.restart(left[:, :block], S[:block], right[:block].T)
        space.expand()
    raise UserError(
        f"the SVD did not reach svd.tolerance={tolerance:g} in {_MAX_PRODUCTS} block products "
        f"(residual {float(estimate / S[0]):.1e}); choose a larger tolerance or svd.recipe=exact."
    )


class _Space:
    """Orthonormal bases with ``A right = left projected``; ``Aᵀ left`` lies in ``right`` and one more block."""

    def __init__(self, tall: Tensor, start: Tensor, generator: torch.Generator) -> None:
        self._tall = tall
        self._generator = generator
        self._block = start.shape[1]
        self.right = torch.linalg.qr(start)[0]
        self.left, projected = torch.linalg.qr(tall @ self.right)
        self.projected = projected.double()
        self._next = self.right

    def next_right_block(self) -> Tensor:
        """Find the block that ``Aᵀ left`` adds to ``right``; return its triangular coefficients (p, p)."""
        product = self._tall.T @ self.left[:, -self._block :]
        self._next, remainder, _ = self._new_directions(product, self.right)
        return remainder

    def expand(self) -> None:
        """Add the block found by ``next_right_block`` to the space, with its image under A."""
        left, diagonal, above = self._new_directions(self._tall @ self._next, self.left)
        height, width = self.projected.shape
        grown = self.projected.new_zeros(height + self._block, width + self._block)
        grown[:height, :width] = self.projected
        grown[:height, width:] = above
        grown[height:, width:] = diagonal
        self.projected = grown
        self.left = torch.cat([self.left, left], dim=1)
        self.right = torch.cat([self.right, self._next], dim=1)

    def restart(self, left: Tensor, values: Tensor, right: Tensor) -> None:
        """Shrink to the Ritz triplets with these coefficients; the next right block stays valid."""
        self.left = self.left @ left.to(self.left)
        self.right = self.right @ right.to(self.right)
        self.projected = torch.diag(values)

    def _new_directions(self, product: Tensor, basis: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Split ``product = Q R + basis C`` with Q orthonormal and orthogonal to ``basis``: (Q, R, C)."""
        scale = torch.linalg.vector_norm(product)
        rest, coefficients = _deflate(product, basis)
        Q, R = torch.linalg.qr(rest)
        remaining = R.diagonal().abs() / scale.clamp_min(torch.finfo(scale.dtype).tiny)
        if bool(remaining.min() < _WEAK):
            # The rounding error of a column that nearly vanished leans towards the basis, so the block is
            # orthogonalised once more. A column that did vanish means an invariant space (low rank): a random
            # direction replaces it, because the one from QR may lie inside the basis.
            dead = remaining < _DEAD
            fill = gaussian(Q.shape[0], Q.shape[1], like=Q, generator=self._generator)
            Q = torch.where(dead, fill / Q.shape[0] ** 0.5, Q)
            R = torch.where(dead[:, None], 0.0, R)
            Q, turn = torch.linalg.qr(_deflate(Q, basis)[0])
            R = turn @ R
        return Q, R, coefficients


def _deflate(block: Tensor, basis: Tensor) -> tuple[Tensor, Tensor]:
    """``block`` without its part in ``basis``, and that part's coefficients; removed twice because of rounding."""
    first = basis.T @ block
    block = block - basis @ first
    second = basis.T @ block
    return block - basis @ second, first + second
