"""DELLA (Deep et al., arXiv 2406.11617): drop entries at random, small ones more often; rescale by 1/(1 − p_i), fuse.

Within each row of ΔW (one output neuron) the drop probability falls linearly with the rank of the magnitude,
from drop + window/2 at the smallest entry to drop − window/2 at the largest.

Variant: the official code's, with window = 2 ε and 1/(1 − p_i) entry by entry; mergekit restores the L1 norm instead.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from hiplora.errors import UserError
from hiplora.merging.base import Drop, Operator, Plan, Tasks, Weights, typed

if TYPE_CHECKING:
    import torch


LARGEST = 1 - 2**-23  # the largest probability whose 1 − p is not 0 in float32


class Della(Operator):
    """``drop``: mean probability; ``window``: spread of it; ``rule``: ties | linear; ``scale``: λ.

    ``weights``: w_t, applied after the drop and before the rule; 1 each.
    """

    drop: Drop = 0.8
    window: Annotated[float, Field(ge=0, lt=1, examples=[0.2])] = 0.2
    rule: Literal["linear", "ties"] = "ties"
    scale: float = 1.0
    weights: Weights = None
    accepts_dense: ClassVar[bool] = True
    full_rank: ClassVar[bool] = True
    draws: ClassVar[bool] = True

    def check_options(self) -> None:
        """Refuse a drop and window whose probabilities leave [0, 1), in float32 too. Raises UserError."""
        super().check_options()
        if self.drop - self.window / 2 < 0 or self.drop + self.window / 2 > LARGEST:
            raise UserError(
                f"{typed('drop', self.drop)} with {typed('window', self.window)} leaves [0, 1): drop ± window/2 must "
                f"stay inside, e.g. {typed('drop', 0.8)} {typed('window', 0.2)}."
            )

    def plan(self, tasks: Tasks, generator: torch.Generator | None) -> Plan:
        """The plan; there is no global quantity."""
        from hiplora.merging.drops import plan_drop, uniform

        assert generator is not None

        def drop(x: torch.Tensor, stream: torch.Generator) -> torch.Tensor:
            p = drop_probabilities(x, self.drop, self.window)
            return x * (uniform(x, stream) >= p) / (1 - p)

        return plan_drop(tasks, generator, drop, rule=self.rule, scale=self.scale, weights=self.weights)


def drop_probabilities(x: torch.Tensor, drop: float, window: float) -> torch.Tensor:
    """The drop probability of every entry (m, n): linear in its rank by magnitude within the row, mean ``drop``."""
    import torch

    n = x.shape[1]
    ladder = torch.linspace(drop + window / 2, drop - window / 2, n) if n > 1 else torch.full((1,), drop)
    order = x.abs().argsort(dim=1, stable=True)
    return torch.empty_like(x).scatter_(1, order, ladder.to(x).expand_as(x))
