"""The exact k-th largest magnitude among all entries of an adapter, without sorting or holding all of them.

A sample gives a bracket around it. One walk over the entries counts those above the bracket and holds those inside.
If the k-th is outside, or too many entries are inside, two more walks find it by counting.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from hiplora.merging.blocks import every_block
from hiplora.updates import Deferred, Dense, Update

SAMPLED = 1 << 19
"""Entries of an adapter in the sample."""
HELD = 1 << 24
"""Most entries held inside a bracket, 64 MB."""
Walk: TypeAlias = Callable[[Callable[[Tensor], Any]], Iterable[Any]]
"""Yields the results of a function on every block of the entries; the function may overwrite a block."""


def threshold(updates: Iterable[Update], density: float) -> float:
    """The k-th largest magnitude of all updates together, k = round(density · entries); infinity for k = 0."""
    held = list(updates)
    return magnitude_threshold(lambda action: every_block(held, action), density, sample=sampled(held))


def magnitude_threshold(walk: Walk, density: float, *, sample: Tensor | None = None) -> float:
    """The k-th largest magnitude of all entries, k = round(density · entries). Exact, whatever the sample.

    Infinity for k = 0: nothing is kept.
    """
    if sample is not None:
        found = _inside(walk, density, *bracket(sample, density))
        if found is not None:
            return found
    return _counted(walk, density)


def bracket(sample: Tensor, density: float) -> tuple[float, float]:
    """Bounds [low, high) that contain the k-th magnitude of all entries for all but about one sample in a million."""
    size = sample.numel()
    margin = 2 + 5 * math.sqrt(size * density * (1 - density))  # five standard deviations of the rank in the sample
    low, high = size - math.ceil(density * size + margin), size - math.floor(density * size - margin)
    inside = [place for place in (low, high) if 0 <= place < size]
    ordered = np.partition(sample.abs().flatten().numpy(), inside) if inside else np.empty(0)
    return float(ordered[low]) if low in inside else 0.0, float(ordered[high]) if high in inside else math.inf


def _inside(walk: Walk, density: float, low: float, high: float) -> float | None:
    """The k-th largest magnitude if it lies in [low, high) and at most HELD entries do; else None."""
    entries = above = held = 0
    inside: list[np.ndarray] = []
    for size, values, more in walk(lambda x: (x.numel(), *_split(x, low, high))):
        entries, above, held = entries + size, above + more, held + len(values)
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


def _split(x: Tensor, low: float, high: float) -> tuple[np.ndarray, int]:
    """The magnitudes in [low, high), and the number of those from high on. Overwrites x."""
    magnitudes = x.abs_().flatten()
    if magnitudes.device.type != "cpu":
        above = magnitudes >= high
        return magnitudes[(magnitudes >= low) & ~above].cpu().numpy(), int(above.sum())
    held: np.ndarray = magnitudes.numpy()  # numpy compares and counts several times as fast as torch here
    over = held >= np.float32(high)
    count = int(np.count_nonzero(over))
    over ^= held >= np.float32(low)
    return held[over], count


def _counted(walk: Walk, density: float) -> float:
    """The k-th largest magnitude by counting, for entries of any distribution.

    The bits of a non-negative float32 order like its value. So the upper 16 bits are counted first, then the lower 16
    among the entries with the k-th's upper bits: two tables of 2¹⁶ counters replace a sort.
    """
    upper = _table(walk, lambda bits: bits >> 16)
    wanted = round(density * int(upper.sum()))
    if wanted == 0:
        return math.inf
    high, above = _descend(upper, wanted)
    lower = _table(walk, lambda bits: bits[(bits >> 16) == high] & 0xFFFF)
    low, _ = _descend(lower, wanted - above)
    return float(torch.tensor([high << 16 | low], dtype=torch.int32).view(torch.float32))


def _table(walk: Walk, key: Callable[[Tensor], Tensor]) -> Tensor:
    """How often each key from 0 to 2¹⁶ − 1 occurs among the bits of all magnitudes."""
    counts = torch.zeros(1 << 16, dtype=torch.int64)
    for found in walk(lambda x: torch.bincount(key(x.abs_().flatten().view(torch.int32)), minlength=1 << 16).cpu()):
        counts += found
    return counts


def _descend(counts: Tensor, wanted: int) -> tuple[int, int]:
    """The bin of the wanted-th entry from the top, and the number of entries in the bins above it."""
    from_top = counts.flip(0).cumsum(0)
    position = int(torch.searchsorted(from_top, wanted))
    above = int(from_top[position - 1]) if position else 0
    return len(counts) - 1 - position, above


def sampled(updates: Sequence[Update]) -> Tensor | None:
    """About SAMPLED entries of all updates, drawn with a fixed seed; None if a sample would not save time.

    Each update contributes in proportion to its size. Below 8 · SAMPLED entries, counting is cheap. A ``Deferred``
    matrix would have to be formed once more for the sample, which costs as much as the walk that it saves.
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
