"""Rows for scoring continuations: every distinct beginning is computed once.

Sequences that begin alike (the options behind one prompt, prompts that open with the same template) are branches of
a tree. A row holds such trees; each token attends to its ancestors and itself, and its position is its depth, so the
result is that of separate rows. The last token of a continuation predicts nothing that is asked for and stays out: a
one-letter option costs nothing beyond its prompt.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

ROW_TOKENS = 256  # a row is closed here: longer ones share more beginnings and spend more on attention


@dataclass(frozen=True)
class Asked:
    """Token ids of a prompt and of a continuation to be scored, at least one each."""

    prompt: list[int]
    continuation: list[int]

    @property
    def path(self) -> list[int]:
        """What the model reads."""
        return self.prompt + self.continuation[:-1]


@dataclass
class Row:
    """Trees of tokens: per token its id, the index of its parent (-1 at a root) and its depth.

    The token ``reads[i]`` predicts ``targets[i]``, which belongs to the sequence number ``owners[i]``.
    """

    ids: list[int] = field(default_factory=list)
    parents: list[int] = field(default_factory=list)
    depths: list[int] = field(default_factory=list)
    reads: list[int] = field(default_factory=list)
    targets: list[int] = field(default_factory=list)
    owners: list[int] = field(default_factory=list)

    def add(self, asked: Asked, owner: int, shared: list[int]) -> list[int]:
        """Add a sequence whose first tokens are those at ``shared``; returns the indices of all of its tokens."""
        path = asked.path
        places = [*shared, *range(len(self.ids), len(self.ids) + len(path) - len(shared))]
        for depth in range(len(shared), len(path)):
            self.ids.append(path[depth])
            self.parents.append(places[depth - 1] if depth else -1)
            self.depths.append(depth)
        self.reads.extend(places[len(asked.prompt) - 1 :])
        self.targets.extend(asked.continuation)
        self.owners.extend([owner] * len(asked.continuation))
        return places

    def ancestry(self, place: int) -> list[int]:
        """The indices of a token's ancestors, from the root on, and its own."""
        path = [place]
        while (parent := self.parents[path[-1]]) >= 0:
            path.append(parent)
        return path[::-1]

    @property
    def branches(self) -> bool:
        """Whether plain causal attention would be wrong."""
        return any(parent != place - 1 for place, parent in enumerate(self.parents))


@dataclass(frozen=True)
class Batch:
    """Rows padded on the right, (B, L); ``positions`` and ``allowed`` are None where no row branches."""

    ids: Tensor
    positions: Tensor | None
    allowed: Tensor | None


def pack(sequences: Sequence[Asked], *, row_tokens: int = ROW_TOKENS) -> list[Row]:
    """Rows of all sequences. Sorted by their tokens, those that begin alike are neighbours."""
    rows = [Row()]
    last: list[int] = []
    places: list[int] = []
    for owner in sorted(range(len(sequences)), key=lambda index: sequences[index].path):
        path = sequences[owner].path
        shared = _common(last, path)
        if rows[-1].ids and len(rows[-1].ids) + len(path) - shared > row_tokens:
            rows.append(Row())
            shared = 0
        places = rows[-1].add(sequences[owner], owner, places[:shared])
        last = path
    return rows if sequences else []


def _common(first: list[int], second: list[int]) -> int:
    """Length of the common beginning."""
    pairs = enumerate(zip(first, second, strict=False))
    return next((index for index, (one, other) in pairs if one != other), min(len(first), len(second)))


def batches(rows: Sequence[Row], *, tokens: int) -> Iterator[list[Row]]:
    """Rows, the longest first, in groups of at most ``tokens`` padded tokens (one row at least)."""
    group: list[Row] = []
    for row in sorted(rows, key=lambda row: -len(row.ids)):
        if group and (len(group) + 1) * len(group[0].ids) > tokens:
            yield group
            group = []
        group.append(row)
    if group:
        yield group


def collate(rows: Sequence[Row], *, device: torch.device) -> Batch:
    """Tensors of one group of rows."""
    length = max(len(row.ids) for row in rows)
    ids = _padded([row.ids for row in rows], length).to(device)
    if not any(row.branches for row in rows):
        return Batch(ids, None, None)
    positions = _padded([row.depths for row in rows], length).to(device)
    allowed = torch.from_numpy(np.stack([visible(row, length) for row in rows]))[:, None]
    return Batch(ids, positions, allowed.to(device))


def visible(row: Row, length: int) -> np.ndarray:
    """Which key each token sees, (length, length) bool: its ancestors and itself; padding sees itself alone."""
    allowed = np.eye(length, dtype=bool)
    for place, parent in enumerate(row.parents):
        if parent >= 0:
            allowed[place] |= allowed[parent]
    return allowed


def _padded(lists: list[list[int]], length: int) -> Tensor:
    return torch.tensor([entries + [0] * (length - len(entries)) for entries in lists])
