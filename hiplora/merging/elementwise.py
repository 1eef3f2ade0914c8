"""Element-wise merge rules: trimming by magnitude, sign election, disjoint mean; and TIES, which combines them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from hiplora.merging.base import Tasks
from hiplora.merging.blocks import fuse_blocks
from hiplora.merging.thresholds import threshold


def disjoint_mean(x: Tensor) -> Tensor:
    """(T, …) → (…): elect the sign of the sum, entry by entry; average the non-zero entries of that sign.

    If the sum is exactly 0, no sign is elected and the entry is 0. Unlike a majority vote over the vector, this
    commutes with flipping the sign of rows and columns. Overwrites x, because a copy would not fit in the CPU's cache.
    """
    sign = x.sum(dim=0).sign_()
    agreeing = x.mul_(sign).clamp_(min=0)  # magnitudes of the entries that agree; the others are 0
    total = agreeing.sum(dim=0).mul_(sign)
    return total.div_(agreeing.sign_().sum(dim=0).clamp_(min=1))


def trimmed(x: Tensor, cut: float, *, out: Tensor | None = None) -> Tensor:
    """x with the entries of magnitude below ``cut`` set to 0.

    All entries equal to the threshold stay, since choosing among them would be arbitrary. hardshrink keeps entries
    above its bound, so the bound is the next smaller float32.
    """
    below = float(torch.tensor(cut).nextafter(torch.tensor(-1.0)))
    if out is None:
        return torch.hardshrink(x, below)
    return torch.ops.aten.hardshrink.out(x, below, out=out)


def weighted(x: Tensor, weights: Sequence[float] | None) -> Tensor:
    """x (T, …) with each task's entries multiplied by its weight; x itself if there are no weights."""
    return x if weights is None else x * torch.tensor(weights).to(x).view(-1, *[1] * (x.ndim - 1))


def plan_ties(
    tasks: Tasks, *, density: float, scope: str, weights: Sequence[float] | None = None, scale: float = 1.0
) -> tuple[Callable[[str], Tensor], dict[str, Any]]:
    """TIES on task vectors: a function from a name to the merged dense matrix, and notes with global thresholds.

    ``scope`` global: one threshold per task over all its matrices; matrix: one per task and matrix. ``weights``
    multiply the trimmed task vectors before the sign is elected, so thresholds do not depend on them. ``scale``
    multiplies the result.
    """
    cuts = [threshold(task.values(), density) for task in tasks] if scope == "global" else None

    def merged(name: str) -> Tensor:
        updates = [task[name] for task in tasks]
        at = cuts or [threshold([update], density) for update in updates]

        def rule(blocks: Tensor) -> Tensor:
            for block, cut in zip(blocks, at, strict=True):
                trimmed(block, cut, out=block)
            return disjoint_mean(weighted(blocks, weights)).mul_(scale)

        return fuse_blocks(updates, rule)

    return merged, {} if cuts is None else {"thresholds": [None if math.isinf(cut) else cut for cut in cuts]}
