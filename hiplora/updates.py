"""The update of a trained adapter: one ΔW (m, n) per adapted matrix, in factors where possible.

Three forms, all immutable: :class:`LowRank` (a product of thin factors), :class:`Principal` (HiP-LoRA's
diagonal on a singular basis, plus a low-rank residual) and :class:`Dense`. An adapter's update is a
``dict[str, Update]`` keyed by the module's name in the backbone. Shapes follow ``nn.Linear``:
m = out_features, n = in_features. No dense matrix is formed unless ``dense()`` is called or a summand is dense.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class LowRank:
    """ΔW = B A with B (m, r) and A (r, n); any scaling is already folded into B."""

    B: Tensor
    A: Tensor

    def __post_init__(self) -> None:
        if self.B.ndim != 2 or self.A.ndim != 2 or self.B.shape[1] != self.A.shape[0]:
            raise ValueError(
                f"LowRank expects B (m, r) and A (r, n), got {tuple(self.B.shape)} and {tuple(self.A.shape)}."
            )

    @property
    def shape(self) -> tuple[int, int]:
        """(m, n)."""
        return self.B.shape[0], self.A.shape[1]

    @property
    def rank(self) -> int:
        """Number of columns of B: an upper bound on the rank of ΔW."""
        return self.B.shape[1]

    @property
    def nbytes(self) -> int:
        """Bytes of both factors."""
        return self.B.nbytes + self.A.nbytes

    def dense(self) -> Tensor:
        """ΔW (m, n)."""
        return self.B @ self.A

    def factors(self) -> LowRank:
        """The update itself."""
        return self

    def scaled(self, factor: float) -> LowRank:
        """factor · ΔW; the factor goes into B."""
        return LowRank(self.B * factor, self.A)

    def norm(self) -> float:
        """‖ΔW‖_F from the r × r core between the QR factors of B and A."""
        return float(torch.linalg.matrix_norm(_core(self)[1]))

    def to(self, *args, **kwargs) -> LowRank:
        """Tensor.to on both factors."""
        return LowRank(self.B.to(*args, **kwargs), self.A.to(*args, **kwargs))


@dataclass(frozen=True, eq=False)
class Principal:
    """ΔW = U diag(phi) Vᵀ + residual, with U (m, k) and V (n, k) orthonormal columns and phi (k,)."""

    U: Tensor
    phi: Tensor
    V: Tensor
    residual: LowRank | None = None

    def __post_init__(self) -> None:
        k = self.phi.numel()
        if self.phi.ndim != 1 or self.U.shape[1:] != (k,) or self.V.shape[1:] != (k,):
            raise ValueError(
                f"Principal expects U (m, k), phi (k,) and V (n, k), got {tuple(self.U.shape)}, "
                f"{tuple(self.phi.shape)} and {tuple(self.V.shape)}."
            )
        if self.residual is not None and self.residual.shape != self.shape:
            raise ValueError(f"Principal of shape {self.shape} got a residual of shape {self.residual.shape}.")

    @property
    def shape(self) -> tuple[int, int]:
        """(m, n)."""
        return self.U.shape[0], self.V.shape[0]

    @property
    def rank(self) -> int:
        """k + r."""
        return self.phi.numel() + (self.residual.rank if self.residual else 0)

    @property
    def nbytes(self) -> int:
        """Bytes of all parts, with those of the basis."""
        return self.U.nbytes + self.phi.nbytes + self.V.nbytes + (self.residual.nbytes if self.residual else 0)

    def dense(self) -> Tensor:
        """ΔW (m, n)."""
        return self.factors().dense()

    def factors(self) -> LowRank:
        """The exact LoRA of rank k + r: B' = [U diag(phi), B], A' = [Vᵀ; A]."""
        B, A = self.U * self.phi, self.V.mT
        if self.residual is None:
            return LowRank(B, A)
        return LowRank(torch.cat([B, self.residual.B], dim=1), torch.cat([A, self.residual.A], dim=0))

    def scaled(self, factor: float) -> Principal:
        """factor · ΔW; the basis is shared, not copied."""
        residual = self.residual.scaled(factor) if self.residual else None
        return Principal(self.U, self.phi * factor, self.V, residual)

    def norm(self) -> float:
        """‖ΔW‖_F from the (k + r) × (k + r) core; exact for a residual that is not projected, too."""
        return self.factors().norm()

    def to(self, *args, **kwargs) -> Principal:
        """Tensor.to on every part."""
        residual = self.residual.to(*args, **kwargs) if self.residual else None
        U, phi, V = (x.to(*args, **kwargs) for x in (self.U, self.phi, self.V))
        return Principal(U, phi, V, residual)


@dataclass(frozen=True, eq=False)
class Dense:
    """ΔW held as a full matrix ``weight`` (m, n)."""

    weight: Tensor

    def __post_init__(self) -> None:
        if self.weight.ndim != 2:
            raise ValueError(f"Dense expects a matrix (m, n), got shape {tuple(self.weight.shape)}.")

    @property
    def shape(self) -> tuple[int, int]:
        """(m, n)."""
        return self.weight.shape[0], self.weight.shape[1]

    @property
    def nbytes(self) -> int:
        """Bytes of the matrix."""
        return self.weight.nbytes

    def dense(self) -> Tensor:
        """ΔW (m, n)."""
        return self.weight

    def scaled(self, factor: float) -> Dense:
        """factor · ΔW."""
        return Dense(self.weight * factor)

    def norm(self) -> float:
        """‖ΔW‖_F."""
        return float(torch.linalg.matrix_norm(self.weight.float()))

    def to(self, *args, **kwargs) -> Dense:
        """Tensor.to on the matrix."""
        return Dense(self.weight.to(*args, **kwargs))


class Deferred(Dense):
    """A full matrix that ``make`` forms anew on every access, of the given shape (m, n); it is never kept.

    It is for updates that depend on the backbone's weights, so that those of several adapters need not fit in memory.
    """

    def __init__(self, make: Callable[[], Tensor], shape: tuple[int, int]) -> None:
        object.__setattr__(self, "_make", make)
        object.__setattr__(self, "_shape", shape)

    @property
    def nbytes(self) -> int:
        """0, as nothing is kept."""
        return 0

    @property
    def weight(self) -> Tensor:  # type: ignore[override]
        """ΔW (m, n), formed now."""
        return self._make()  # type: ignore[attr-defined]

    @property
    def shape(self) -> tuple[int, int]:
        """(m, n), without forming the matrix."""
        return self._shape  # type: ignore[attr-defined]

    def scaled(self, factor: float) -> Deferred:
        """factor · ΔW."""
        return Deferred(lambda: self.weight * factor, self.shape)

    def to(self, *args, **kwargs) -> Deferred:
        """Tensor.to on the matrix whenever it is formed."""
        return Deferred(lambda: self.weight.to(*args, **kwargs), self.shape)


Update: TypeAlias = LowRank | Principal | Dense


def add(updates: Sequence[Update]) -> Update:
    """Σ_t ΔW_t in the tightest exact form.

    If all are :class:`Principal` on one basis, phi adds and residuals concatenate. If any is :class:`Dense`, the sum
    is. Otherwise factors concatenate.

    Raises:
        ValueError: there is no update, or shapes differ.
    """
    if not updates:
        raise ValueError("add needs at least one update.")
    if len({u.shape for u in updates}) > 1:
        raise ValueError(f"add needs updates of one shape, got {[u.shape for u in updates]}.")
    if any(isinstance(u, Dense) for u in updates):
        total = updates[0].dense().clone()
        for update in updates[1:]:
            total += update.dense()
        return Dense(total)
    first = updates[0]
    if isinstance(first, Principal) and all(isinstance(u, Principal) and _same_basis(first, u) for u in updates):
        return _add_principal([u for u in updates if isinstance(u, Principal)])
    return _concatenate([u.factors() for u in updates if not isinstance(u, Dense)])


def inside(update: Update, U: Tensor, V: Tensor) -> float:
    """‖ΔW‖_F² − ‖(I − UUᵀ) ΔW (I − VVᵀ)‖_F²: the energy in the columns' span of U (m, k) or of V (n, l).

    U and V have orthonormal columns. Computed as ‖UᵀΔW‖² + ‖(I − UUᵀ) ΔW V‖², which avoids cancellation.
    """
    if isinstance(update, Dense):
        weight = update.dense()
        left = U.mT @ weight
        return float(left.square().sum() + ((weight - U @ left) @ V).square().sum())
    factors = update.factors()
    left = U.mT @ factors.B
    beside = LowRank(factors.B - U @ left, factors.A @ V)
    return LowRank(left, factors.A).norm() ** 2 + beside.norm() ** 2


def zero(shape: tuple[int, int]) -> LowRank:
    """The update 0 of shape (m, n), of rank 0, so that it adds no rank to a sum."""
    return LowRank(torch.zeros(shape[0], 0), torch.zeros(0, shape[1]))


def dora(weight: Tensor, product: LowRank, magnitude: Tensor) -> Tensor:
    """DoRA's ΔW (m, n) = diag(m / ‖W + s B A‖_rows) (W + s B A) − W, with W (m, n), s B A and magnitude m (m,)."""
    moved = weight + product.dense()
    return moved * (magnitude.flatten() / moved.norm(dim=1))[:, None] - weight


def thin_svd(update: LowRank) -> tuple[Tensor, Tensor, Tensor]:
    """Thin SVD of B A from the QR of both factors: U (m, q), S (q,) descending, V (n, q), fp32 or better.

    q = min(r, m, n). Directions of a zero singular value are arbitrary, as in any SVD.
    """
    q_left, core, q_right = _core(update)
    u, s, vh = torch.linalg.svd(core, full_matrices=False)
    return q_left @ u, s, q_right @ vh.mT


def difference(one: LowRank, other: LowRank) -> LowRank:
    """``B₁A₁ − B₂A₂`` with B = U Σ and A = Vᵀ of its thin SVD, in fp32.

    Concatenated factors of two products that nearly cancel would lose digits in bf16. They would also contain the
    part that cancels, which changes merges that depend on the factorisation (Pico, Core Space).
    """
    both = LowRank(torch.cat([one.B, -other.B], dim=1), torch.cat([one.A, other.A], dim=0))
    u, s, v = thin_svd(both.to(torch.float64))
    return LowRank(u * s, v.mT).to(torch.float32)


def _core(update: LowRank) -> tuple[Tensor, Tensor, Tensor]:
    """B A = Q_B (R_B R_Aᵀ) Q_Aᵀ as (Q_B (m, q), the core R_B R_Aᵀ, Q_A (n, q))."""
    precise: Callable[[Tensor], Tensor] = lambda x: x if x.dtype == torch.float64 else x.float()  # noqa: E731
    q_left, r_left = torch.linalg.qr(precise(update.B))
    q_right, r_right = torch.linalg.qr(precise(update.A).mT)
    return q_left, r_left @ r_right.mT, q_right


def _same_basis(a: Principal, b: Principal) -> bool:
    return all(x is y or torch.equal(x, y) for x, y in ((a.U, b.U), (a.V, b.V)))


def _add_principal(updates: list[Principal]) -> Principal:
    residuals = [u.residual for u in updates if u.residual is not None]
    phi = torch.stack([u.phi for u in updates]).sum(dim=0)
    return Principal(updates[0].U, phi, updates[0].V, _concatenate(residuals) if residuals else None)


def _concatenate(parts: list[LowRank]) -> LowRank:
    return LowRank(torch.cat([p.B for p in parts], dim=1), torch.cat([p.A for p in parts], dim=0))
