"""Addition: ΔW = Σ_t w_t ΔW_t. Factors are concatenated and, on one singular basis, φ adds; no dense matrix is formed.

Variant: the sum of the products B_t A_t, as PEFT's ``cat``; PEFT's ``linear`` is (Σ B_t)(Σ A_t), another matrix.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from hiplora.merging.base import Operator, Plan, Tasks, Weights

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch


class Addition(Operator):
    """The plain sum of all updates; exact, of rank Σ_t r_t (k + Σ_t r_t for HiP-LoRA). ``weights``: w_t, 1 each."""

    weights: Weights = None
    accepts_dense: ClassVar[bool] = True

    def plan(self, tasks: Tasks, generator: torch.Generator | None) -> Plan:
        """Σ_t w_t ΔW_t in the tightest exact form."""
        return plan_sum(tasks, scale=1.0, weights=self.weights)


def plan_sum(tasks: Tasks, *, scale: float, weights: Sequence[float] | None) -> Plan:
    """scale · Σ_t w_t ΔW_t; dense only if a summand is. An adapter of weight 0 adds no rank."""
    from hiplora.updates import Dense, Update, add

    pairs = [(weight, task) for weight, task in zip(weights or [1.0] * len(tasks), tasks, strict=True) if weight]

    def matrix(name: str) -> Update:
        total = add([task[name] if weight == 1.0 else task[name].scaled(weight) for weight, task in pairs])
        return total if scale == 1.0 else total.scaled(scale)

    return Plan(matrix, factored=not any(isinstance(u, Dense) for _, task in pairs for u in task.values()))
