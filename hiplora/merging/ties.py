"""TIES-Merging (Yadav et al., arXiv 2306.01708) on dense ΔW: trim, elect the sign of the sum, average what agrees.

The task vector is the whole ΔW, not A and B apart. With ``threshold: global`` there is one threshold per task over all
its matrices, as in the official code; with ``matrix`` one per task and matrix.

Variant: round(d K) entries are kept, and all that equal the smallest of them (official code: int(d K) + 1). An entry
whose sum is exactly 0 is 0 (official code: it gets the majority's sign). Weights act before the sign is elected, and
the average divides by the number of agreeing entries (mergekit divides by the sum of their weights, PEFT elects without
weights). docs/merging.md compares the public codes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from hiplora.merging.base import Density, Operator, Plan, Tasks, Threshold, Weights

if TYPE_CHECKING:
    import torch


class Ties(Operator):
    """``density``: share of entries kept; ``threshold``: global | matrix; ``scale``: λ on the result.

    ``weights``: w_t on the trimmed updates, before the sign is elected; 1 each.
    """

    density: Density = 0.2
    threshold: Threshold = "global"
    scale: float = 1.0
    weights: Weights = None
    accepts_dense: ClassVar[bool] = True
    full_rank: ClassVar[bool] = True

    def plan(self, tasks: Tasks, generator: torch.Generator | None) -> Plan:
        """The plan: one walk per task, rarely three, for its global threshold; then one matrix at a time, in blocks."""
        from hiplora.merging.elementwise import plan_ties
        from hiplora.updates import Dense

        merged, notes = plan_ties(
            tasks, density=self.density, scope=self.threshold, weights=self.weights, scale=self.scale
        )
        return Plan(lambda name: Dense(merged(name)), factored=False, notes=notes)
