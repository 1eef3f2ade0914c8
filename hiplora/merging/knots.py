"""KnOTS (Stoica et al., arXiv 2410.19735): align the updates in one basis, merge them there.

[ΔW_1 … ΔW_T] side by side = U S [V_1 … V_T]; the task vectors are S V_t = Uᵀ ΔW_t = (Uᵀ B_t) A_t, merged
element by element (trim and sign over all matrices at once) and mapped back by U. Through factors: the wide
matrix is [B_1 … B_T] times a block diagonal of the A_t, whose QR is block-wise, so its SVD is a small one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from hiplora.merging.base import Operator, Plan, Tasks

if TYPE_CHECKING:
    import torch

    from hiplora.updates import LowRank, Update


class Knots(Operator):
    """``rule``: ties | addition; ``density`` and ``threshold`` (global | matrix) are of TIES; ``scale``: λ."""

    rule: str = "ties"
    density: float = 0.2
    threshold: str = "global"
    scale: float = 1.0

    def check_options(self) -> None:
        """As for TIES."""
        super().check_options()
        self._between("density", 1e-6, 1)
        self._one_of("rule", ("ties", "addition"))
        self._one_of("threshold", ("global", "matrix"))

    def plan(self, tasks: Tasks, generator: torch.Generator | None) -> Plan:
        """All bases first (as large as the adapters); then rows of S V_t, one matrix at a time."""
        from hiplora.updates import LowRank

        basis = {name: shared_basis([task[name] for task in tasks]) for name in tasks[0]}
        rows = [{name: in_basis(basis[name], update) for name, update in task.items()} for task in tasks]
        merged, notes = self._rule(rows)

        def matrix(name: str) -> LowRank:
            return LowRank(basis[name] * self.scale, merged(name))

        return Plan(matrix, factored=True, notes=notes)

    def _rule(self, rows: Tasks) -> tuple[Callable[[str], torch.Tensor], dict[str, Any]]:
        """The merged S V (q, n) by name, and notes."""
        import torch

        from hiplora.merging.elementwise import fuse_blocks, plan_ties

        if self.rule == "ties":
            return plan_ties(rows, density=self.density, scope=self.threshold)
        return (lambda name: fuse_blocks([row[name] for row in rows], lambda x: torch.sum(x, dim=0))), {}


def in_basis(basis: torch.Tensor, update: Update) -> LowRank:
    """Uᵀ ΔW_t = S V_t (q, n), as the product of Uᵀ B_t and A_t."""
    from hiplora.merging.factors import factored
    from hiplora.updates import LowRank

    factors = factored(update)
    return LowRank(basis.mT @ factors.B, factors.A)


def shared_basis(updates: Sequence[Update]) -> torch.Tensor:
    """U (m, q) of the SVD of [ΔW_1 … ΔW_T], numerically zero directions dropped."""
    import torch

    from hiplora.merging.factors import column_basis, thin

    factors = [thin(update) for update in updates]
    scaled = [f.B @ torch.linalg.qr(f.A.mT)[1].mT for f in factors]
    return column_basis(torch.cat(scaled, dim=1))[0].float()
