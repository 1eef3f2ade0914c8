"""Task arithmetic (Ilharco et al., arXiv 2212.04089): ΔW = λ Σ_t ΔW_t, in factors."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from hiplora.merging.base import Operator, Plan, Tasks

if TYPE_CHECKING:
    import torch


class TaskArithmetic(Operator):
    """``scale`` is λ; null stands for 1/T, the average of the T adapters."""

    scale: float | None = None
    accepts_dense: ClassVar[bool] = True

    def plan(self, tasks: Tasks, generator: torch.Generator | None) -> Plan:
        """λ Σ_t ΔW_t in the tightest exact form."""
        from hiplora.merging.addition import plan_sum

        return plan_sum(tasks, scale=1 / len(tasks) if self.scale is None else self.scale)
