"""Compare the singular triplets of a backbone with the exact SVD, matrix by matrix."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from hiplora.errors import UserError
from hiplora.spectral.angles import principal_angles
from hiplora.spectral.orthogonal import two_sided_residual
from hiplora.spectral.recipes import Basis


@dataclass(frozen=True)
class Comparison:
    """One matrix against its dense fp64 SVD at the leading k directions."""

    name: str
    shape: tuple[int, int]
    residual: float  # worst two-sided ‖W v − σ u‖ / σ_1
    excess: float  # ‖W − U diag(σ) Vᵀ‖_F over the best rank-k error, minus 1
    angle: float  # worst principal angle of both sides, degrees
    gap: float  # (σ_k − σ_{k+1}) / σ_1: the angle is ill-determined unless the residual is far below it


def compare(name: str, weight: Tensor, basis: Basis, k: int) -> Comparison:
    """Measure the first k ≤ basis.k directions of an (m, n) weight against ``torch.linalg.svd`` in fp64."""
    wide = weight.detach().double()
    U, S, Vh = torch.linalg.svd(wide, full_matrices=False)
    kept = basis.first(k)
    triplets = (kept.U.to(wide), kept.S.to(wide), kept.V.to(wide))
    best = Basis(U[:, :k], S[:k], Vh[:k].T, 0.0)
    angles = (principal_angles(triplets[0], best.U)[-1], principal_angles(triplets[2], best.V)[-1])
    following = S[k] if k < S.numel() else torch.zeros_like(S[0])
    return Comparison(
        name=name,
        shape=(weight.shape[0], weight.shape[1]),
        residual=two_sided_residual(wide, triplets),
        excess=excess_error(wide, kept, best),
        angle=math.degrees(float(max(angles))),
        gap=float((S[k - 1] - following) / S[0]) if S[0] > 0 else 0.0,
    )


def excess_error(weight: Tensor, basis: Basis, best: Basis) -> float:
    """``‖W − U diag(σ) Vᵀ‖_F`` of ``basis`` over that of ``best``, the exact triplets of the same k, minus 1.

    0 if both errors are rounding, as for a weight of rank k or less.
    """
    wide = weight.detach().double()
    ours, optimal = (
        float(torch.linalg.matrix_norm(wide - (part.U.to(wide) * part.S.to(wide)) @ part.V.to(wide).T))
        for part in (basis, best)
    )
    # No rank-k matrix is better than the best one, so a negative excess is rounding.
    rounding = 1e-6 * float(torch.linalg.matrix_norm(wide))
    return 0.0 if max(ours, optimal) <= rounding else max(0.0, ours / max(optimal, rounding) - 1)


def compare_all(weights: Mapping[str, Tensor], bases: Mapping[str, Basis], *, k: int) -> Iterator[Comparison]:
    """``compare`` for every weight, at min(k, m, n) directions."""
    for name, weight in weights.items():
        yield compare(name, weight, bases[name], min(k, *weight.shape))


def table(comparisons: Iterable[Comparison]) -> Iterator[str]:
    """Lines of a text table: a header, one per matrix as it is measured, and the worst values. UserError if empty."""
    yield f"{'matrix':44} {'shape':>11} {'residual':>9} {'excess %':>9} {'angle °':>9} {'gap':>9}"
    rows = []
    for row in comparisons:
        rows.append(row)
        yield _line(row.name, f"{row.shape[0]}×{row.shape[1]}", row)
    if not rows:
        raise UserError("there is no matrix to verify; check the names in model.target_modules.")
    worst = Comparison(
        name="worst",
        shape=(0, 0),
        residual=max(row.residual for row in rows),
        excess=max(row.excess for row in rows),
        angle=max(row.angle for row in rows),
        gap=min(row.gap for row in rows),
    )
    yield _line(f"worst of {len(rows)}", "", worst)


def _line(name: str, shape: str, row: Comparison) -> str:
    return f"{name:44} {shape:>11} {row.residual:9.1e} {100 * row.excess:9.3f} {row.angle:9.3f} {row.gap:9.1e}"
