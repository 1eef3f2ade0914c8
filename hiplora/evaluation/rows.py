"""Rows for scoring continuations: each prompt once, all its options behind it.

    prompt tokens | option 1 | option 2 | …        segments 0 … 0 | 1 … 1 | 2 … 2 | …

Every option sees the prompt and itself, and its positions go on where the prompt's end: the result is that of
separate rows, at the cost of one prompt. The last token of an option predicts nothing that is asked for and stays
out, so a one-letter option costs nothing beyond the prompt.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Row:
    """Flat lists of one prompt with its options; ``reads[i]`` is the token that predicts ``targets[i]``."""

    ids: list[int]
    segments: list[int]
    positions: list[int]
    reads: list[int]
    targets: list[int]
    options: list[int]

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True)
class Batch:
    """Rows padded on the right; see :class:`Row`. ``allowed`` is None where plain causal attention says the same."""

    ids: Tensor
    positions: Tensor | None
    allowed: Tensor | None
    rows: list[int]


def build_row(prompt: Sequence[int], options: Sequence[Sequence[int]], *, max_length: int) -> Row:
    """Lay out one prompt with its options; a prompt that leaves no room loses its beginning."""
    room = max_length - max(len(option) for option in options) + 1
    prompt = list(prompt)[-room:]
    row = Row(list(prompt), [0] * len(prompt), list(range(len(prompt))), [], [], [])
    for number, option in enumerate(options):
        start = len(row.ids)
        row.ids.extend(option[:-1])
        row.segments.extend([number + 1] * (len(option) - 1))
        row.positions.extend(range(len(prompt), len(prompt) + len(option) - 1))
        row.reads.extend([len(prompt) - 1, *range(start, start + len(option) - 1)])
        row.targets.extend(option)
        row.options.extend([number] * len(option))
    return row


def batches(rows: Sequence[Row], *, tokens: int) -> Iterator[list[int]]:
    """Indices of rows, the longest first, in groups of at most ``tokens`` padded tokens (one row at least)."""
    group: list[int] = []
    for index in sorted(range(len(rows)), key=lambda index: -len(rows[index])):
        if group and (len(group) + 1) * len(rows[group[0]]) > tokens:
            yield group
            group = []
        group.append(index)
    if group:
        yield group


def collate(rows: Sequence[Row], group: list[int], *, device: torch.device) -> Batch:
    """Tensors of one group of rows."""
    chosen = [rows[index] for index in group]
    length = max(len(row) for row in chosen)
    ids = _padded([row.ids for row in chosen], length, value=0)
    segments = _padded([row.segments for row in chosen], length, value=-1)
    if int(segments.max()) <= 1:  # one continuation per prompt: a plain sequence
        return Batch(ids.to(device), None, None, group)
    positions = _padded([row.positions for row in chosen], length, value=0)
    return Batch(ids.to(device), positions.to(device), visible(segments.to(device)), group)


def visible(segments: Tensor) -> Tensor:
    """Which key each query sees, (B, 1, L, L) bool, from segment numbers (B, L): earlier ones of the prompt or its own."""
    query, key = segments[:, :, None], segments[:, None, :]
    causal = torch.ones(segments.shape[1], segments.shape[1], dtype=torch.bool, device=segments.device).tril()
    return (((key == 0) | (key == query)) & causal)[:, None]


def _padded(lists: list[list[int]], length: int, *, value: int) -> Tensor:
    return torch.tensor([entries + [value] * (length - len(entries)) for entries in lists])
