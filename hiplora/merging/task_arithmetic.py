"""Task arithmetic (Ilharco et al., arXiv 2212.04089): ΔW = λ Σ_t w_t ΔW_t, in factors.

Variant: λ defaults to 1/T, with weights too; PEFT's ``linear`` is (Σ B_t)(Σ A_t) instead, and mergekit's ``linear``
divides by Σ_t w_t.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from hiplora.merging.base import Operator, Plan, Tasks, Weights, on_command_line

if TYPE_CHECKING:
    import torch


class TaskArithmetic(Operator):
    """``scale`` is λ; null stands for 1/T, the average of the T adapters. ``weights``: w_t, 1 each."""

    scale: float | None = None
    weights: Weights = None
    accepts_dense: ClassVar[bool] = True

    def without_scale(self) -> str:
        return ", or leave it out for the average" if on_command_line() else ", or null for the average"

    def plan(self, tasks: Tasks, generator: torch.Generator | None) -> Plan:
        """λ Σ_t w_t ΔW_t in the tightest exact form."""
        from hiplora.merging.addition import plan_sum

        scale = 1 / len(tasks) if self.scale is None else self.scale
        return plan_sum(tasks, scale=scale, weights=self.weights)
