"""The options of one adapter's training: its budget and optimizer; loads no torch."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from hiplora.config import Bookkeeping, Fraction, Length, Options, Positive
from hiplora.errors import UserError

Share = Annotated[float, Field(ge=0, lt=1)]
Rows = Annotated[int, Field(ge=1, le=2**20)]
LEAST_NORM, MOST_NORM = 1e-6, 1e6  # of a gradient that is clipped


class Training(Options):
    """Options of the section ``training``. ``max_grad_norm`` 0 does not clip, ``weight_decay`` 0 does not decay.

    ``snapshots`` are fractions of the steps after which the state of the training is stored with the adapter.
    """

    group: ClassVar[str] = "training"

    steps: Positive
    rows_per_step: Rows
    micro_batch_rows: Rows
    row_tokens: Length
    lr: Annotated[float, Field(ge=1e-8, le=10, examples=[1e-3])]
    beta1: Share
    beta2: Share
    eps: Annotated[float, Field(ge=1e-15, le=1, examples=[1e-8])]
    weight_decay: Annotated[float, Field(ge=0, le=10, examples=[0.01])]
    warmup_ratio: Share
    max_grad_norm: float
    checkpoint_every: Annotated[Positive, Bookkeeping]
    gradient_checkpointing: Annotated[bool, Bookkeeping]
    share_prefixes: bool  # not bookkeeping: examples that share a prefix share its dropout mask
    log_every: Annotated[Positive, Bookkeeping]
    snapshots: Annotated[tuple[Fraction, ...], Field(strict=False, examples=["[0.5,0.75]"]), Bookkeeping] = ()

    def step_of(self, fraction: float) -> int:
        """The step after which a fraction of the training is done, at least 1."""
        return max(1, round(fraction * self.steps))

    def snapshot_steps(self) -> tuple[int, ...]:
        """The steps after which a snapshot is taken, ascending."""
        return tuple(sorted({self.step_of(fraction) for fraction in self.snapshots}))

    def check_options(self) -> None:
        if self.max_grad_norm != 0 and not LEAST_NORM <= self.max_grad_norm <= MOST_NORM:
            raise UserError(
                f"training.max_grad_norm={self.max_grad_norm} must be 0, which does not clip, or "
                f"from {LEAST_NORM:g} to {MOST_NORM:g}, e.g. 1.0."
            )
