"""Addition: ΔW = Σ_t ΔW_t. Factors are concatenated and, on a shared singular basis, φ adds; nothing is dense."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from hiplora.merging.base import Operator, Plan, Tasks

if TYPE_CHECKING:
    import torch


class Addition(Operator):
    """The plain sum of all updates; exact, of rank Σ_t r_t (k + Σ_t r_t for HiP-LoRA)."""

    accepts_dense: ClassVar[bool] = True

    def plan(self, tasks: Tasks, generator: torch.Generator | None) -> Plan:
        """Σ_t ΔW_t in the tightest exact form."""
        return plan_sum(tasks, scale=1.0)


def plan_sum(tasks: Tasks, *, scale: float) -> Plan:
    """scale · Σ_t ΔW_t; dense only where a summand is."""
    from hiplora.updates import Dense, Update, add

    def matrix(name: str) -> Update:
        total = add([task[name] for task in tasks])
        return total if scale == 1.0 else total.scaled(scale)

    return Plan(matrix, factored=not any(isinstance(u, Dense) for task in tasks for u in task.values()))
