"""Leading singular triplets of a weight by one of three recipes.

``exact``       all directions in fp64; the same weights give the same directions on every machine.
``converged``   block Golub-Kahan-Lanczos with thick restarts, stopped by its two-sided residual.
``randomized``  Halko, Martinsson and Tropp's range finder (arXiv 0909.4061, algorithms 4.4 and 5.1), the
                paper's recipe: a good approximation of the weight, not of its single directions.
``auto``        ``exact`` up to a size, ``converged`` above it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from hiplora.errors import UserError
from hiplora.spectral.lanczos import converged_triplets
from hiplora.spectral.names import RECIPES
from hiplora.spectral.orthogonal import Triplets, gaussian, ieee_products, ritz_triplets, two_sided_residual


@dataclass(frozen=True)
class Basis:
    """Leading singular triplets ``W ≈ U diag(S) Vᵀ`` of an (m, n) weight, all fp32.

    U is (m, k), S is (k,) in descending order, V is (n, k); the entry of largest magnitude in each column of U is
    positive. ``residual`` is ``max_i max(‖W v_i − σ_i u_i‖, ‖Wᵀ u_i − σ_i v_i‖) / σ_1``. The randomised recipe leaves
    it nan: it guarantees no bound, and measuring one would take an eighth of its time (``spectral verify`` does).
    """

    U: Tensor
    S: Tensor
    V: Tensor
    residual: float

    @property
    def k(self) -> int:
        return self.S.numel()

    def first(self, k: int) -> Basis:
        """The leading k triplets; the residual stays, as an upper bound. Raises UserError unless 1 ≤ k ≤ self.k."""
        if not 1 <= k <= self.k:
            raise UserError(f"k = {k} is out of range for a basis of {self.k} directions; choose k from 1 to {self.k}.")
        return Basis(self.U[:, :k], self.S[:k], self.V[:, :k], self.residual)


def truncated_svd(
    weight: Tensor,
    *,
    k: int,
    recipe: str = "auto",
    seed: int = 0,
    oversampling: int = 8,
    power_iterations: int = 2,
    tolerance: float = 1e-3,
    exact_up_to: int = 2048,
    workspace: Tensor | None = None,
) -> Basis:
    """The k leading singular triplets of an (m, n) weight, on the weight's device.

    Args:
        seed: of the starting block (CPU generator, so that a GPU starts from the same numbers).
        oversampling: columns beyond k that ``randomized`` and ``converged`` iterate.
        power_iterations: of ``randomized`` alone.
        tolerance: of ``converged`` alone: bound of the residual, relative to σ_1.
        exact_up_to: largest min(m, n) for which ``auto`` is ``exact``.
        workspace: flat fp32 buffer of at least m·n entries for the weight's fp32 copy; reusing one saves page faults.

    Raises:
        UserError: k exceeds min(m, n), the weight is not a finite matrix, or the tolerance is not reached.
    """
    _check(weight, k=k)
    recipe = resolve_recipe(weight.shape, recipe=recipe, exact_up_to=exact_up_to)
    generator = torch.Generator().manual_seed(seed)
    block = min(k + oversampling, *weight.shape)
    transposed = weight.shape[0] < weight.shape[1]
    with torch.no_grad():
        if recipe == "exact":
            tall = _tall(weight.double())
            triplets = _exact(tall, k)
            return _basis(triplets, two_sided_residual(tall, triplets), transposed=transposed)
    with torch.no_grad(), ieee_products():  # not around exact, which is fp64 and runs in several threads
        tall = _tall(_single(weight, workspace))
        if recipe == "randomized":
            start = gaussian(tall.shape[1], block, like=tall, generator=generator)
            triplets = _randomized(tall, start, k=k, power_iterations=power_iterations)
            return _basis(triplets, math.nan, transposed=transposed)
        triplets = converged_triplets(tall, k=k, block=block, tolerance=tolerance, generator=generator)
        return _basis(triplets, two_sided_residual(tall, triplets), transposed=transposed)


def resolve_recipe(shape: torch.Size | tuple[int, ...], *, recipe: str, exact_up_to: int) -> str:
    """The recipe that ``auto`` stands for at this shape; other recipes unchanged. UserError for an unknown one."""
    if recipe not in RECIPES:
        raise UserError(f"svd.recipe={recipe!r} does not exist; choose one of {', '.join(RECIPES)}.")
    if recipe != "auto":
        return recipe
    return "exact" if min(shape) <= exact_up_to else "converged"


def _check(weight: Tensor, *, k: int) -> None:
    if weight.ndim != 2:
        raise UserError(f"an SVD needs a matrix, but the weight has shape {tuple(weight.shape)}.")
    if not 1 <= k <= min(weight.shape):
        raise UserError(
            f"k = {k} is out of range for a {weight.shape[0]}×{weight.shape[1]} matrix; "
            f"choose k from 1 to {min(weight.shape)}."
        )
    if not torch.isfinite(torch.stack(weight.aminmax())).all():
        raise UserError("the weight holds NaN or infinite entries, so it has no SVD; load an intact backbone.")


def _single(weight: Tensor, workspace: Tensor | None) -> Tensor:
    if weight.dtype == torch.float32 or workspace is None:
        return weight.float()
    return workspace[: weight.numel()].view_as(weight).copy_(weight)


def _tall(matrix: Tensor) -> Tensor:
    return matrix if matrix.shape[0] >= matrix.shape[1] else matrix.T


def _exact(tall: Tensor, k: int) -> Triplets:
    # In fp64 the Gram matrix resolves directions down to σ_i ≈ 1e-7 σ_1, below the rounding of bf16 or fp32
    # entries, in a third of the time of an SVD; the Ritz step restores full accuracy in σ and U.
    _, vectors = torch.linalg.eigh(tall.T @ tall)
    return ritz_triplets(tall, vectors[:, -k:].flip(1))


def _randomized(tall: Tensor, start: Tensor, *, k: int, power_iterations: int) -> Triplets:
    left, _ = torch.linalg.qr(tall @ start)
    for _ in range(power_iterations):
        right, _ = torch.linalg.qr(tall.T @ left)
        left, _ = torch.linalg.qr(tall @ right)
    V, S, U = ritz_triplets(tall.T, left)
    return U[:, :k], S[:k], V[:, :k]


def _basis(triplets: Triplets, residual: float, *, transposed: bool) -> Basis:
    """The basis in the weight's own orientation, in fp32, with the signs fixed."""
    U, S, V = (part.float() for part in triplets)
    if transposed:
        U, V = V, U
    largest = U.gather(0, U.abs().argmax(dim=0, keepdim=True))
    signs = torch.where(largest < 0, -1.0, 1.0)
    return Basis((U * signs).contiguous(), S.contiguous(), (V * signs).contiguous(), residual)
