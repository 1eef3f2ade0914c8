"""DARE (Yu et al., arXiv 2311.03099): drop entries of every ΔW_t at random, rescale the rest by 1/(1 − p), fuse.

The rescaling is the paper's, which keeps the expectation of every entry; it does not restore a norm.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from hiplora.merging.base import Operator, Plan, Tasks

if TYPE_CHECKING:
    import torch


class Dare(Operator):
    """``drop``: p; ``rule``: linear (sum) | ties (sign election and disjoint mean, no trimming); ``scale``: λ."""

    drop: float = 0.8
    rule: str = "linear"
    scale: float = 1.0
    accepts_dense: ClassVar[bool] = True
    draws: ClassVar[bool] = True

    def check_options(self) -> None:
        """p = 1 would drop everything and divide by zero."""
        super().check_options()
        self._between("drop", 0, 0.9999)
        self._one_of("rule", ("linear", "ties"))

    def plan(self, tasks: Tasks, generator: torch.Generator | None) -> Plan:
        """One matrix at a time; no global quantity."""
        from hiplora.merging.drops import plan_drop, uniform

        assert generator is not None

        def drop(x: torch.Tensor, stream: torch.Generator) -> torch.Tensor:
            return x * (uniform(x, stream) >= self.drop) / (1 - self.drop)

        return plan_drop(tasks, generator, drop, rule=self.rule, scale=self.scale)
