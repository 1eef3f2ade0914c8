"""Calibrations before an operator: Pico (Tang and Yang, arXiv 2604.16826) and its two controls.

Pico, per matrix, on B with the scaling folded in: [B_1 … B_T] = U S Xᵀ, collision degree c_i = S_i² / Σ_j S_j²,
a_i = 1 / (1 + (T − 1) c_i), B_t ← B_t + U diag(a − 1) Uᵀ B_t. After the merge the update is rescaled to the
mean of the original ‖ΔW_t‖_F. Controls: ``rescale`` only rescales; ``random`` applies the same coefficients to
random orthonormal directions instead of U. Variant: α/r is folded into B first, and norms are restored after the merge.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from hiplora.merging.base import Tasks, streams
from hiplora.merging.factors import column_basis
from hiplora.updates import Dense, LowRank, Update, thin_svd


@dataclass(frozen=True)
class Calibrated:
    """Calibrated adapters, the function to apply to each merged matrix, and notes for the report."""

    tasks: Sequence[Mapping[str, Update]]
    finish: Callable[[str, Update], Update]
    notes: dict[str, Any] = field(default_factory=dict)


def calibrate(kind: str, tasks: Tasks, generator: torch.Generator | None) -> Calibrated:
    """All adapters after one of CALIBRATIONS; ``random`` needs the generator."""
    if kind == "none":
        return Calibrated(tasks, lambda name, merged: merged)
    targets = {name: sum(task[name].norm() for task in tasks) / len(tasks) for name in tasks[0]}

    def finish(name: str, merged: Update) -> Update:
        return rescaled(merged, targets[name])

    if kind == "rescale":
        return Calibrated(tasks, finish)
    # A copy, so that an operator that draws after this has the same masks under every calibration.
    stream = streams(generator.clone_state()) if kind == "random" and generator is not None else None
    shrunk: list[dict[str, Update]] = [{} for _ in tasks]
    worst = []
    for name in tasks[0]:
        factors, collision = shrink([task[name] for task in tasks], stream(name) if stream else None)
        for task, update in zip(shrunk, factors, strict=True):
            task[name] = update
        worst.append(float(collision.max()) if collision.numel() else 0.0)
    return Calibrated(shrunk, finish, {"mean_largest_collision": sum(worst) / len(worst)})


def shrink(updates: Sequence[Update], generator: torch.Generator | None = None) -> tuple[list[LowRank], Tensor]:
    """T updates of one matrix with the shared directions of B shrunk, and the collision degrees c (q,).

    With a generator, the coefficients act on random orthonormal directions instead: the control ``random``.
    """
    factors = [factorisation(update) for update in updates]
    stack = torch.cat([f.B for f in factors], dim=1).double()
    directions, s = column_basis(stack)
    energy = s.square()
    collision = energy / energy.sum().clamp(min=torch.finfo(energy.dtype).tiny)
    if generator is not None:
        # Draw as many columns as the stack has, so that the others do not depend on whether its last direction counts.
        noise = torch.randn(stack.shape, generator=generator, dtype=torch.float64).to(directions.device)
        directions = torch.linalg.qr(noise)[0][:, : directions.shape[1]]
    loss = 1 / (1 + (len(updates) - 1) * collision) - 1
    directions, loss = directions.to(factors[0].B), loss.to(factors[0].B)
    return [LowRank(f.B + directions @ (loss[:, None] * (directions.mT @ f.B)), f.A) for f in factors], collision


def factorisation(update: Update) -> LowRank:
    """B A of an update. Pico depends on the factorisation, so all forms but LowRank take B = U Σ of their thin SVD."""
    if isinstance(update, LowRank):
        return update
    if isinstance(update, Dense):
        u, s, vh = torch.linalg.svd(update.weight, full_matrices=False)
        return LowRank(u * s, vh)
    u, s, v = thin_svd(update.factors())
    return LowRank(u * s, v.mT)


def rescaled(merged: Update, norm: float) -> Update:
    """The update scaled to a Frobenius norm; a zero update stays zero."""
    current = merged.norm()
    return merged if current == 0 else merged.scaled(norm / current)
