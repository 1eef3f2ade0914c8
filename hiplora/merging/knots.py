"""KnOTS (Stoica et al., arXiv 2410.19735): align the updates in one basis, merge them there.

[ΔW_1 … ΔW_T] side by side = U S [V_1 … V_T]; the task vectors are S V_t = Uᵀ ΔW_t = (Uᵀ B_t) A_t, merged
element by element (with a global threshold per task) and mapped back by U. Through factors: the wide matrix is
[B_1 … B_T] times a block diagonal of the A_t. The QR of that is block-wise, which leaves a small SVD.

Variant: directions count if their singular value is above 10⁻⁶ of the largest; the official code's bound is an absolute
10⁻⁵, and its updates leave α/r out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal

from hiplora.merging.base import Density, Operator, Plan, Tasks, Threshold

if TYPE_CHECKING:
    import torch

    from hiplora.updates import LowRank, Update


class Knots(Operator):
    """``rule``: ties | addition; ``density`` and ``threshold`` (global | matrix): of TIES alone; ``scale``: λ."""

    rule: Literal["ties", "addition"] = "ties"
    density: Density = 0.2
    threshold: Threshold = "global"
    scale: float = 1.0

    def plan(self, tasks: Tasks, generator: torch.Generator | None) -> Plan:
        """The plan: all bases (as large as the adapters) are computed now, the merged S V on demand."""
        from hiplora.updates import LowRank

        basis = {name: shared_basis([task[name] for task in tasks]) for name in tasks[0]}
        rows = [{name: in_basis(basis[name], update) for name, update in task.items()} for task in tasks]
        merged, notes = self._rule(rows)

        def matrix(name: str) -> LowRank:
            return LowRank(basis[name] * self.scale, merged(name))

        return Plan(matrix, factored=True, notes=notes)

    def _rule(self, rows: Tasks) -> tuple[Callable[[str], torch.Tensor], dict[str, Any]]:
        """A function from a name to the merged S V (q, n), and notes."""
        from hiplora.merging.blocks import fuse_blocks
        from hiplora.merging.elementwise import plan_ties

        if self.rule == "ties":
            return plan_ties(rows, density=self.density, scope=self.threshold)
        return (lambda name: fuse_blocks([row[name] for row in rows], lambda blocks: blocks.sum(dim=0))), {}


def in_basis(basis: torch.Tensor, update: Update) -> LowRank:
    """Uᵀ ΔW_t = S V_t (q, n), as the product of Uᵀ B_t and A_t."""
    from hiplora.merging.factors import factored
    from hiplora.updates import LowRank

    factors = factored(update)
    return LowRank(basis.mT @ factors.B, factors.A)


def shared_basis(updates: Sequence[Update]) -> torch.Tensor:
    """U (m, q) of the SVD of [ΔW_1 … ΔW_T], without numerically zero directions; float32."""
    import torch

    from hiplora.merging.factors import column_basis, thin

    factors = [thin(update) for update in updates]
    scaled = [f.B @ torch.linalg.qr(f.A.mT)[1].mT for f in factors]
    return column_basis(torch.cat(scaled, dim=1))[0].float()
