"""TSV-Merge (Gargiulo et al., arXiv 2412.00081) through thin SVDs of the factors.

Per matrix: the k_t leading singular triplets of every ΔW_t, concatenated, both sides replaced by their polar
factors: polar(U) Σ polar(V)ᵀ. Variant: k_t = min(⌊min(m, n)/T⌋, rank ΔW_t): the official k ignores the rank and, on a
LoRA, would fill the factors with arbitrary null-space vectors.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hiplora.merging.base import Operator, Plan, Tasks

if TYPE_CHECKING:
    import torch

    from hiplora.updates import LowRank


class Tsvm(Operator):
    """``scale``: λ on the result, of rank Σ_t k_t."""

    scale: float = 1.0

    def plan(self, tasks: Tasks, generator: torch.Generator | None) -> Plan:
        """The plan: each matrix on its own, in factors."""
        import torch

        from hiplora.merging.factors import orthogonalised_sum, thin, triplets

        def matrix(name: str) -> LowRank:
            m, n = tasks[0][name].shape
            leading = [triplets(thin(task[name]), min(m, n) // len(tasks)) for task in tasks]
            return orthogonalised_sum(leading, (m, n)).scaled(self.scale).to(torch.float32)

        return Plan(matrix, factored=True)
