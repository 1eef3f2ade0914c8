"""Budget and optimizer of one adapter's training: the options, without torch."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from hiplora.config import Bookkeeping, Options, Positive

Share = Annotated[float, Field(ge=0, lt=1)]


class Training(Options):
    """Options of the section ``training``. ``max_grad_norm`` 0 does not clip, ``weight_decay`` 0 does not decay."""

    group: ClassVar[str] = "training"

    steps: Positive
    rows_per_step: Positive
    micro_batch_rows: Positive
    row_tokens: Positive
    lr: Annotated[float, Field(gt=0, examples=[1e-3])]
    beta1: Share
    beta2: Share
    eps: Annotated[float, Field(gt=0, examples=[1e-8])]
    weight_decay: Annotated[float, Field(ge=0)]
    warmup_ratio: Share
    max_grad_norm: Annotated[float, Field(ge=0)]
    checkpoint_every: Annotated[Positive, Bookkeeping]
    gradient_checkpointing: Annotated[bool, Bookkeeping]
    share_prefixes: bool  # decides who draws dropout masks
    log_every: Annotated[Positive, Bookkeeping]
