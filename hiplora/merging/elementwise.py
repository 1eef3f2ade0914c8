"""Element-wise merge rules on streams of row blocks: trimming by magnitude, sign election, disjoint mean.

A dense ΔW is never laid out for a task: blocks of its rows are formed from its factors, used and dropped.
Thresholds over all matrices of a task are found by counting, and sorting the few entries around them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hiplora.merging.base import Tasks
from hiplora.updates import Deferred, Dense, Update

BLOCK_ENTRIES = 1 << 18
"""Entries per block: a few of them stay in a core's cache."""
SAMPLED = 1 << 19
"""Entries of an adapter from which a bracket around its threshold is guessed."""
HELD = 1 << 24
"""Entries inside a bracket that are held, 64 MB; more are counted in two walks instead."""
Stream = Callable[[], Iterable[Tensor]]


def row_blocks(update: Update) -> Iterator[tuple[slice, Tensor]]:
    """ΔW (m, n) of an update as consecutive (rows, block) in float32."""
    m, n = update.shape
    dense = update.dense() if isinstance(update, Dense) else None
    factors = None if isinstance(update, Dense) else update.factors()
    step = max(1, BLOCK_ENTRIES // max(1, n))
    for start in range(0, m, step):
        rows = slice(start, min(start + step, m))
        yield rows, (factors.B[rows] @ factors.A if factors else dense[rows]).float()  # type: ignore[index]


def fuse_blocks(updates: Sequence[Update], rule: Callable[[list[Tensor]], Tensor]) -> Tensor:
    """One merged matrix (m, n): ``rule`` takes the same block (rows, n) of all T updates."""
    merged = None
    for blocks in zip(*map(row_blocks, updates), strict=True):
        rows, first = blocks[0]
        if merged is None:
            merged = torch.empty(updates[0].shape, device=first.device)
        merged[rows] = rule([block for _, block in blocks])
    return torch.empty(updates[0].shape) if merged is None else merged


def magnitude_threshold(stream: Stream, density: float, *, sample: Tensor | None = None) -> float:
    """The k-th largest magnitude among all entries of a stream, k = round(density · entries). Exact.

    Infinity for k = 0: nothing is kept. With a ``sample`` of the entries, a bracket around the k-th one is guessed from
    it, and one walk counts what is above and sorts what is inside. Where the guess is missed, or too much is inside,
    and without a sample, the entries are counted in two walks.
    """
    if sample is not None:
        found = _inside(stream, density, *bracket(sample, density))
        if found is not None:
            return found
    return _counted(stream, density)


def bracket(sample: Tensor, density: float) -> tuple[float, float]:
    """Bounds [low, high) that hold the k-th magnitude of all, unless the sample is a one-in-a-million one."""
    size = sample.numel()
    margin = 2 + 5 * math.sqrt(size * density * (1 - density))  # five standard deviations of a rank in the sample
    low, high = size - math.ceil(density * size + margin), size - math.floor(density * size - margin)
    inside = [place for place in (low, high) if 0 <= place < size]
    ordered = np.partition(sample.abs().flatten().numpy(), inside) if inside else np.empty(0)
    return float(ordered[low]) if low in inside else 0.0, float(ordered[high]) if high in inside else math.inf


def _inside(stream: Stream, density: float, low: float, high: float) -> float | None:
    """The k-th largest magnitude if it lies in [low, high) and at most HELD entries do; else None."""
    entries = above = held = 0
    inside: list[np.ndarray] = []
    for x in stream():
        magnitudes = x.abs().flatten()
        values, more = _split(magnitudes, low, high)
        entries, above, held = entries + magnitudes.numel(), above + more, held + len(values)
        inside.append(values)
        if held > HELD:
            return None
    wanted = round(density * entries)
    if wanted == 0:
        return math.inf
    if not above < wanted <= above + held:
        return None
    place = held - (wanted - above)
    return float(np.partition(np.concatenate(inside), place)[place])


def _split(magnitudes: Tensor, low: float, high: float) -> tuple[np.ndarray, int]:
    """The entries in [low, high), and the number of those from high on."""
    if magnitudes.device.type != "cpu":
        above = magnitudes >= high
        return magnitudes[(magnitudes >= low) & ~above].cpu().numpy(), int(above.sum())
    held: np.ndarray = magnitudes.numpy()  # which compares and counts several times as fast
    over = held >= np.float32(high)
    return held[(held >= np.float32(low)) ^ over], int(np.count_nonzero(over))


def _counted(stream: Stream, density: float) -> float:
    """The k-th largest magnitude by counting, whatever the entries are.

    ``stream()`` is walked twice. The bits of a non-negative float32 order like its value, so the upper 16
    bits are counted first, then the lower 16 among the entries that share the upper ones: two tables of
    2¹⁶ counters replace a sort.
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
    sign = x.sum(dim=0).sign_()
    agreeing = (x * sign).clamp_(min=0)  # as magnitudes; the others are 0
    total = agreeing.sum(dim=0).mul_(sign)
    return total.div_(agreeing.sign_().sum(dim=0).clamp_(min=1))


def trimmed(x: Tensor, cut: float) -> Tensor:
    """The entries whose magnitude is at least ``cut``, the others 0.

    Entries equal to the threshold stay, all of them: which ones would be arbitrary. hardshrink keeps what is above its
    bound, so that is the float32 just below.
    """
    below = torch.tensor(cut).nextafter(torch.tensor(-1.0))
    return torch.nn.functional.hardshrink(x, float(below))


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
        at = cuts or [_threshold([update], density) for update in updates]

        def rule(blocks: list[Tensor]) -> Tensor:
            left = torch.stack([trimmed(block, cut) for block, cut in zip(blocks, at, strict=True)])
            return disjoint_mean(weighted(left, weights))

        return fuse_blocks(updates, rule)

    return merged, {} if cuts is None else {"thresholds": [None if math.isinf(cut) else cut for cut in cuts]}


def _threshold(updates: Iterable[Update], density: float) -> float:
    held = list(updates)
    return magnitude_threshold(
        lambda: (block for update in held for _, block in row_blocks(update)), density, sample=sampled(held)
    )


def sampled(updates: Sequence[Update]) -> Tensor | None:
    """About SAMPLED entries of all updates, drawn with a fixed seed; None where there are too few to be worth it.

    Each update gives as many as its size says. A full matrix that is formed anew each time would be formed once more
    for it, which is what the sample is to save: then there is none.
    """
    sizes = [update.shape[0] * update.shape[1] for update in updates]
    if sum(sizes) < 8 * SAMPLED or any(isinstance(update, Deferred) for update in updates):
        return None
    g = torch.Generator().manual_seed(0)
    parts = []
    for update, size in zip(updates, sizes, strict=True):
        m, n = update.shape
        count = math.ceil(SAMPLED * size / sum(sizes))
        rows, columns = torch.randint(m, (count,), generator=g), torch.randint(n, (count,), generator=g)
        if isinstance(update, Dense):
            parts.append(update.weight[rows.to(update.weight.device), columns.to(update.weight.device)].float().cpu())
        else:
            B, A = (part.cpu() for part in (update.factors().B, update.factors().A))
            parts.append((B[rows] * A.T[columns]).sum(dim=1).float())
    return torch.cat(parts)
