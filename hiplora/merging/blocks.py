"""Updates as streams of row blocks, so that no dense ΔW_t is held.

Blocks of rows are formed from the factors, used and dropped, on all cores. Each of torch's threads computes its own
blocks, because an operation on one block is too small to be split over threads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch
from torch import Tensor

from hiplora.updates import Dense, Update

BLOCK_ENTRIES = 1 << 17
"""Entries per block: enough to outweigh the overhead of a call, few enough to stay in the CPU's cache."""
CHUNKS = 4
"""Parts per thread into which a matrix is cut, so that no thread waits long for the slowest."""
P = TypeVar("P")
R = TypeVar("R")


class Rows:
    """Reads ΔW (m, n) of an update some rows at a time; the matrix of a ``Dense`` is formed once for all rows."""

    def __init__(self, update: Update) -> None:
        self.shape = update.shape
        self._dense = update.dense() if isinstance(update, Dense) else None
        self._factors = None if isinstance(update, Dense) else update.factors()

    @property
    def device(self) -> torch.device:
        return (self._dense if self._factors is None else self._factors.B).device  # type: ignore[union-attr]

    def blocks(self) -> list[slice]:
        """All rows in slices of about ``BLOCK_ENTRIES`` entries, in order."""
        m, n = self.shape
        step = max(1, BLOCK_ENTRIES // max(1, n))
        return [slice(start, min(start + step, m)) for start in range(0, m, step)]

    def buffer(self, *first: int) -> Tensor:
        """An empty float32 tensor (…, rows, n) that holds one block."""
        blocks = self.blocks()
        return torch.empty(*first, blocks[0].stop if blocks else 0, self.shape[1], device=self.device)

    def read(self, rows: slice, buffer: Tensor) -> Tensor:
        """The rows of ΔW in float32, written into ``buffer``."""
        out = buffer[: rows.stop - rows.start]
        if self._factors is None:
            return out.copy_(self._dense[rows].detach())  # type: ignore[index]
        B, A = self._factors.B[rows].detach(), self._factors.A.detach()
        return torch.mm(B, A, out=out) if B.dtype == A.dtype == out.dtype else out.copy_(B @ A)


def every_block(updates: Sequence[Update], action: Callable[[Tensor], R]) -> Iterator[R]:
    """The results of ``action`` on every block (rows, n) of every update; it may overwrite the block."""
    for update in updates:
        source = Rows(update)

        def chunk(blocks: Sequence[slice], source: Rows = source) -> list[R]:
            buffer = source.buffer()
            return [action(source.read(rows, buffer)) for rows in blocks]

        for results in on_all_cores(chunk, source.blocks(), device=source.device):
            yield from results


def fuse_blocks(updates: Sequence[Update], rule: Callable[[Tensor], Tensor], *, in_order: bool = False) -> Tensor:
    """One merged matrix (m, n): ``rule`` maps a block of all updates (T, rows, n) to (rows, n) and may overwrite it.

    ``in_order`` is for rules that draw: one block after another, from the first row on.
    """
    sources = [Rows(update) for update in updates]
    merged = torch.empty(sources[0].shape, device=sources[0].device)

    def chunk(blocks: Sequence[slice]) -> None:
        buffer = sources[0].buffer(len(sources))
        for rows in blocks:
            for source, mine in zip(sources, buffer, strict=True):
                source.read(rows, mine)
            merged[rows] = rule(buffer[:, : rows.stop - rows.start])

    if in_order:
        chunk(sources[0].blocks())
    else:
        on_all_cores(chunk, sources[0].blocks(), device=merged.device)
    return merged


def on_all_cores(action: Callable[[Sequence[P]], R], parts: Sequence[P], *, device: torch.device) -> list[R]:
    """Results of ``action`` on consecutive chunks of ``parts``, in order; as many run at once as torch has threads.

    While they run, torch computes each with one thread. On a GPU one chunk holds all parts.
    """
    threads = torch.get_num_threads() if device.type == "cpu" else 1
    if threads == 1 or len(parts) == 1:
        return [action(parts)] if parts else []
    size = max(1, len(parts) // (CHUNKS * threads))
    chunks = [parts[start : start + size] for start in range(0, len(parts), size)]

    inference = torch.is_inference_mode_enabled()

    def in_thread(chunk: Sequence[P]) -> R:
        with torch.inference_mode(inference):  # a thread does not inherit the mode
            return action(chunk)

    torch.set_num_threads(1)
    try:
        with ThreadPoolExecutor(threads) as pool:
            return list(pool.map(in_thread, chunks))
    finally:
        torch.set_num_threads(threads)
