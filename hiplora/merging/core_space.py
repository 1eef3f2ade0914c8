"""Core Space merging (Panariello et al., arXiv 2509.17786): merge small cores instead of matrices, without loss.

U_B (left singular vectors of [B_1 … B_T]) and V_A (right ones of [A_1; …; A_T]) span all updates, so
ΔW_t = U_B M_t V_Aᵀ with M_t = U_Bᵀ ΔW_t V_A of size Σr × Σr at most. The cores are merged and mapped back. Core +
addition is addition, core + TSV is TSV-M; TIES on cores differs from TIES on ΔW and depends on the basis.

Variant: columns that are parallel up to float32 count once, and with different ranks TSV has the full matrix's k_t (the
official code keeps all Σr columns and cuts at the mean rank); α/r is folded into B.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from hiplora.merging.base import Density, Operator, Plan, Tasks, Threshold

if TYPE_CHECKING:
    import torch

    from hiplora.updates import LowRank, Update


class CoreSpace(Operator):
    """``rule``: ties | tsvm | addition; ``density``, ``threshold`` (matrix | global): of TIES alone; ``scale``: λ."""

    version: ClassVar[int] = 2  # 1: bases of columns brought to length 1
    rule: Literal["ties", "tsvm", "addition"] = "ties"
    density: Density = 0.2
    threshold: Threshold = "matrix"
    scale: float = 1.0

    def plan(self, tasks: Tasks, generator: torch.Generator | None) -> Plan:
        """The plan: all cores (Σr × Σr each) are computed now, merged matrices on demand."""
        from hiplora.updates import LowRank

        spaces = {name: core_space([task[name] for task in tasks]) for name in tasks[0]}
        cores = [{name: spaces[name][1][i] for name in spaces} for i in range(len(tasks))]
        merged, notes = self._rule(cores, {name: min(update.shape) for name, update in tasks[0].items()})

        def matrix(name: str) -> LowRank:
            left, _, right = spaces[name]
            return LowRank((left @ merged(name).double() * self.scale).float(), right.mT.float())

        return Plan(matrix, factored=True, notes=notes)

    def _rule(
        self, cores: Sequence[Mapping[str, torch.Tensor]], sizes: Mapping[str, int]
    ) -> tuple[Callable[[str], torch.Tensor], dict[str, Any]]:
        """A function from a name to its merged core (p, q), and notes; ``sizes`` is min(m, n) of every full matrix."""
        import torch

        from hiplora.merging.elementwise import plan_ties
        from hiplora.merging.factors import orthogonalised_sum, triplets
        from hiplora.updates import Dense, LowRank

        if self.rule == "ties":
            dense = [{name: Dense(core.float()) for name, core in task.items()} for task in cores]
            return plan_ties(dense, density=self.density, scope=self.threshold)
        if self.rule == "addition":
            return (lambda name: torch.stack([task[name] for task in cores]).sum(dim=0)), {}

        def tsv(name: str) -> torch.Tensor:
            # The cap on k_t is that of the full matrix, so that adapters of different ranks give TSV-M too.
            p, q = cores[0][name].shape
            factors = [LowRank(task[name], torch.eye(q).to(task[name])) for task in cores]
            return orthogonalised_sum([triplets(f, sizes[name] // len(cores)) for f in factors], (p, q)).dense()

        return tsv, {}


def core_space(updates: Sequence[Update]) -> tuple[torch.Tensor, list[torch.Tensor], torch.Tensor]:
    """U_B (m, p), the cores M_t (p, q) of all updates, and V_A (n, q); float64.

    U_B and V_A are the singular vectors of the raw stacks, without normalised columns. The factors were rounded to
    float32, so columns that adapters share exactly (HiP-LoRA's directions, scaled by each one's φ) are parallel only
    up to rounding. Counting the rounding errors as directions would fill the cores with near-zeros and change the share
    that a density keeps.
    """
    import torch

    from hiplora.merging.factors import left_vectors, thin

    factors = [thin(update) for update in updates]
    left = left_vectors(torch.cat([f.B for f in factors], dim=1))
    right = left_vectors(torch.cat([f.A.mT for f in factors], dim=1))
    return left, [(left.mT @ f.B) @ (f.A @ right) for f in factors], right
