"""DARE (Yu et al., arXiv 2311.03099): drop entries of every ΔW_t at random, rescale the rest by 1/(1 − p), fuse.

The paper's rescaling keeps the expectation of every entry; it does not restore a norm.

Variant: 1/(1 − p), where mergekit restores the L1 norm of each tensor; with TIES nothing is trimmed again by magnitude,
as in PEFT and mergekit. docs/merging.md compares the public codes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from hiplora.merging.base import Drop, Operator, Plan, Tasks, Weights

if TYPE_CHECKING:
    import torch


class Dare(Operator):
    """``drop``: p; ``rule``: linear (sum) | ties (sign election and disjoint mean, no trimming); ``scale``: λ.

    ``weights``: w_t, applied after the drop and before the rule; 1 each.
    """

    drop: Drop = 0.8
    rule: Literal["linear", "ties"] = "linear"
    scale: float = 1.0
    weights: Weights = None
    accepts_dense: ClassVar[bool] = True
    full_rank: ClassVar[bool] = True
    draws: ClassVar[bool] = True

    def plan(self, tasks: Tasks, generator: torch.Generator | None) -> Plan:
        """The plan; there is no global quantity."""
        from hiplora.merging.drops import plan_drop, uniform

        assert generator is not None

        def drop(x: torch.Tensor, stream: torch.Generator) -> torch.Tensor:
            return x * (uniform(x, stream) >= self.drop) / (1 - self.drop)

        return plan_drop(tasks, generator, drop, rule=self.rule, scale=self.scale, weights=self.weights)
