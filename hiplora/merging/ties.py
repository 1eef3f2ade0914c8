"""TIES-Merging (Yadav et al., arXiv 2306.01708) on dense ΔW: trim, elect the sign of the sum, average what agrees.

The task vector is the whole ΔW, not A and B apart. With ``threshold: global`` the cut is one magnitude per
task over all matrices, as in the official code; with ``matrix`` one per task and matrix.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from hiplora.merging.base import Operator, Plan, Tasks

if TYPE_CHECKING:
    import torch


class Ties(Operator):
    """``density``: share of entries kept; ``threshold``: global | matrix; ``scale``: λ on the result."""

    density: float = 0.2
    threshold: str = "global"
    scale: float = 1.0
    accepts_dense: ClassVar[bool] = True

    def check_options(self) -> None:
        """A density is a share, a threshold one of two."""
        super().check_options()
        self._between("density", 1e-6, 1)
        self._one_of("threshold", ("global", "matrix"))

    def plan(self, tasks: Tasks, generator: torch.Generator | None) -> Plan:
        """Two counting passes per task for the global cut; then one matrix at a time, in blocks of rows."""
        from hiplora.merging.elementwise import plan_ties
        from hiplora.updates import Dense

        merged, notes = plan_ties(tasks, density=self.density, scope=self.threshold)
        return Plan(lambda name: Dense(merged(name) * self.scale), factored=False, notes=notes)
