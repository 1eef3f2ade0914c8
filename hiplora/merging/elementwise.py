"""Element-wise merge rules on streams of row blocks: trimming by magnitude, sign election, disjoint mean.

A dense ΔW is never laid out for a task: blocks of its rows are formed from its factors, used and dropped.
Thresholds over all matrices of a task are found by counting, not by sorting.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from hiplora.merging.base import Tasks
from hiplora.updates import Dense, Update

BLOCK_ENTRIES = 1 << 18
"""Entries per block: a few of them stay in a core's cache."""


def row_blocks(update: Update) -> Iterator[tuple[slice, Tensor]]:
    """ΔW (m, n) of an update as consecutive (rows, block) in float32."""
    m, n = update.shape
    dense = update.dense() if isinstance(update, Dense) else None
    factors = None if isinstance(update, Dense) else update.factors()
    step = max(1, BLOCK_ENTRIES // max(1, n))
    for start in range(0, m, step):
        rows = slice(start, min(start + step, m))
        yield rows, (factors.B[rows] @ factors.A if factors else dense[rows]).float()  # type: ignore[index]


def fuse_blocks(updates: Sequence[Update], rule: Callable[[Tensor], Tensor]) -> Tensor:
    """One merged matrix (m, n): ``rule`` takes the blocks of all T updates as (T, rows, n)."""
    merged = None
    for blocks in zip(*map(row_blocks, updates), strict=True):
        rows, first = blocks[0]
        if merged is None:
            merged = torch.empty(updates[0].shape, device=first.device)
        merged[rows] = rule(torch.stack([block for _, block in blocks]))
    return torch.empty(updates[0].shape) if merged is None else merged


def magnitude_threshold(stream: Callable[[], Iterable[Tensor]], density: float) -> float:
    """The k-th largest magnitude among all entries of a stream, k = round(density · entries). Exact.

    ``stream()`` is walked twice. The bits of a non-negative float32 order like its value, so the upper 16
    bits are counted first, then the lower 16 among the entries that share the upper ones: two tables of
    2¹⁶ counters replace a sort. Infinity for k = 0: nothing is kept.
    """
    upper = torch.zeros(1 << 16, dtype=torch.int64)
    for x in stream():
        upper += torch.bincount(_bits(x) >> 16, minlength=1 << 16).cpu()
    wanted = round(density * int(upper.sum()))
    if wanted == 0:
        return math.inf
    high, above = _descend(upper, wanted)
    lower = torch.zeros(1 << 16, dtype=torch.int64)
    for x in stream():
        bits = _bits(x)
        lower += torch.bincount(bits[(bits >> 16) == high] & 0xFFFF, minlength=1 << 16).cpu()
    low, _ = _descend(lower, wanted - above)
    return float(torch.tensor([high << 16 | low], dtype=torch.int32).view(torch.float32))


def _bits(x: Tensor) -> Tensor:
    return x.float().abs().flatten().view(torch.int32)


def _descend(counts: Tensor, wanted: int) -> tuple[int, int]:
    """Bin that holds the wanted-th entry from the top, and the number of entries in the bins above it."""
    from_top = counts.flip(0).cumsum(0)
    position = int(torch.searchsorted(from_top, wanted))
    above = int(from_top[position - 1]) if position else 0
    return len(counts) - 1 - position, above


def disjoint_mean(x: Tensor) -> Tensor:
    """(T, …) → (…): elect the sign of the sum, entry by entry; average the non-zero entries of that sign.

    Where the sum is exactly zero no sign is elected and the entry is 0: unlike a majority vote over the
    vector, this commutes with flipping the sign of rows and columns.
    """
    agree = x * x.sum(dim=0).sign() > 0
    return torch.where(agree, x, 0.0).sum(dim=0) / agree.sum(dim=0).clamp(min=1)


def weighted(x: Tensor, weights: Sequence[float] | None) -> Tensor:
    """(T, …) with every task's entries multiplied by its weight; x itself where there are none."""
    return x if weights is None else x * torch.tensor(weights).to(x).view(-1, *[1] * (x.ndim - 1))


def plan_ties(
    tasks: Tasks, *, density: float, scope: str, weights: Sequence[float] | None = None
) -> tuple[Callable[[str], Tensor], dict[str, Any]]:
    """TIES on task vectors: the merged dense matrix by name, and notes with the thresholds where global.

    ``scope`` global: one threshold per task over all its matrices; matrix: one per task and matrix. ``weights``
    multiply what is left of every task vector, before the sign is elected; thresholds are of the updates themselves.
    """
    cuts = [_threshold(task.values(), density) for task in tasks] if scope == "global" else None

    def merged(name: str) -> Tensor:
        updates = [task[name] for task in tasks]
        at = torch.tensor(cuts if cuts else [_threshold([update], density) for update in updates])

        def rule(x: Tensor) -> Tensor:
            # Entries equal to the threshold stay, all of them: which ones would be arbitrary.
            return disjoint_mean(weighted(torch.where(x.abs() >= at.to(x)[:, None, None], x, 0.0), weights))

        return fuse_blocks(updates, rule)

    return merged, {} if cuts is None else {"thresholds": [None if math.isinf(cut) else cut for cut in cuts]}


def _threshold(updates: Iterable[Update], density: float) -> float:
    held = list(updates)
    return magnitude_threshold(lambda: (block for update in held for _, block in row_blocks(update)), density)
