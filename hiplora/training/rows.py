"""Packed training rows: several examples in one row, none of which can attend to another.

An example of prompt ``p`` and answer ``a`` is the sequence ``s = p + a``; the model reads ``s[:-1]`` and is
asked for ``s[1:]``, and only the targets that belong to ``a`` carry loss. Every example restarts its position
ids at 0. Where the model gets position ids, no attention mask and no cache, transformers finds the restarts
and makes the attention block-diagonal; with a mask or a cache it silently falls back to one causal block.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch

OPEN_ROWS = 32  # rows that still take examples while packing; more fill rows better and shuffle less
SHORTEST_PREFIX = 16  # tokens in which prompts must agree for their common prefix to be computed once


@dataclass(frozen=True)
class Encoded:
    """Token ids of one example; loss is taken on ``answer`` alone, which ends with the end token."""

    prompt: list[int]
    answer: list[int]

    @property
    def tokens(self) -> int:
        """Length of the whole sequence."""
        return len(self.prompt) + len(self.answer)

    @property
    def inputs(self) -> int:
        """Positions the example takes in a row: its last token is predicted, never read."""
        return self.tokens - 1


@dataclass(frozen=True)
class Row:
    """The examples packed into one row, in order, and the positions they take."""

    examples: tuple[Encoded, ...]
    inputs: int

    @property
    def tokens(self) -> int:
        """Prompt and answer tokens of the row, without padding."""
        return sum(example.tokens for example in self.examples)


@dataclass(frozen=True)
class Fitted:
    """Examples that fit a row, and how many had to be cut or left out for that."""

    examples: list[Encoded]
    truncated: int
    dropped: int


def fit(encoded: Sequence[Encoded], *, row_tokens: int) -> Fitted:
    """Cut answers at the end of a row; drop examples of which no answer token would be left.

    Raises ValueError if an example has no answer.
    """
    kept, truncated = [], 0
    for example in encoded:
        if not example.answer:
            raise ValueError("an example without answer tokens cannot be trained on")
        room = row_tokens + 1 - len(example.prompt)
        if room < 1 or example.inputs < 1:
            continue
        truncated += room < len(example.answer)
        kept.append(Encoded(example.prompt, example.answer[:room]))
    return Fitted(kept, truncated, len(encoded) - len(kept))


def pack(encoded: Sequence[Encoded], *, row_tokens: int, order: Sequence[int]) -> list[Row]:
    """First-fit packing in the given order, into rows of at most ``row_tokens`` positions.

    Only the last ``OPEN_ROWS`` rows take examples, so that a row holds neighbours of the order and the result
    is nearly as shuffled as the order is. Raises ValueError if an example is longer than a row.
    """
    rows: list[list[Encoded]] = []
    room: list[int] = []
    first_open = 0
    for index in order:
        example = encoded[index]
        if example.inputs > row_tokens:
            raise ValueError(f"an example of {example.inputs} positions does not fit {row_tokens}")
        place = next((i for i in range(first_open, len(rows)) if room[i] >= example.inputs), None)
        if place is None:
            place = len(rows)
            rows.append([])
            room.append(row_tokens)
            first_open = max(first_open, len(rows) - OPEN_ROWS)
        rows[place].append(example)
        room[place] -= example.inputs
    return [Row(tuple(row), row_tokens - left) for row, left in zip(rows, room, strict=True)]


def epoch_rows(encoded: Sequence[Encoded], *, row_tokens: int, seed: int, epoch: int) -> list[Row]:
    """The rows of one epoch: every example once, in an order that depends on seed and epoch alone."""
    generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
    order = torch.randperm(len(encoded), generator=generator).tolist()
    return pack(encoded, row_tokens=row_tokens, order=order)


def row_stream(encoded: Sequence[Encoded], *, row_tokens: int, seed: int) -> Iterator[Row]:
    """Rows without end: epoch after epoch, each with its own permutation."""
    epoch = 0
    while True:
        yield from epoch_rows(encoded, row_tokens=row_tokens, seed=seed, epoch=epoch)
        epoch += 1


def micro_batches(rows: Iterator[Row], *, rows_per_step: int, micro_batch_rows: int) -> Iterator[list[Row]]:
    """Cut a stream of rows into the micro-batches of optimizer steps; the last one of a step may be smaller."""
    while True:
        for start in range(0, rows_per_step, micro_batch_rows):
            yield list(islice(rows, min(micro_batch_rows, rows_per_step - start)))


def collate(rows: Sequence[Row], *, pad_id: int, share_prefixes: bool = False) -> dict[str, Any]:
    """One micro-batch.

    Returns ``input_ids`` and ``position_ids`` of shape (rows, L), L the longest row, and the label positions
    of the flattened batch: ``label_index`` (n,) into its rows × L positions and ``label_ids`` (n,), the tokens
    to be predicted there; ``places`` (N,) are the positions that need to be computed, see :func:`_places`;
    ``tokens`` and ``examples`` are counts. Padding is a block of its own at the end of a row: nothing attends to it.
    """
    length = max(row.inputs for row in rows)
    ids: list[int] = []
    positions: list[int] = []
    index: list[int] = []
    labels: list[int] = []
    placed: list[tuple[int, Encoded]] = []
    for number, row in enumerate(rows):
        start = number * length
        for example in row.examples:
            placed.append((start, example))
            sequence = example.prompt + example.answer
            first = max(len(example.prompt) - 1, 0)  # the last prompt token predicts the first answer token
            ids += sequence[:-1]
            positions += range(len(sequence) - 1)
            index += range(start + first, start + len(sequence) - 1)
            labels += sequence[first + 1 :]
            start += len(sequence) - 1
        ids += [pad_id] * (length - row.inputs)
        positions += range(length - row.inputs)
    shape = (len(rows), length)
    return {
        "input_ids": torch.tensor(ids).view(shape),
        "position_ids": torch.tensor(positions).view(shape),
        "label_index": torch.tensor(index),
        "label_ids": torch.tensor(labels),
        "places": torch.tensor(_places(placed, share_prefixes=share_prefixes)),
        "tokens": sum(row.tokens for row in rows),
        "examples": sum(len(row.examples) for row in rows),
    }


def _places(placed: Sequence[tuple[int, Encoded]], *, share_prefixes: bool) -> list[int]:
    """The positions of the examples, given with their first one, that need to be computed: no padding.

    With ``share_prefixes``, where prompts agree in their first ``SHORTEST_PREFIX`` tokens, what all of these have
    in common (but for the last token of a prompt, which predicts) is computed once: the first example is whole and
    of the others, right behind it, stands what comes after. So an example whose position ids begin at P > 0
    continues the first P positions of the last one that begins at 0.
    """
    alike: dict[object, list[tuple[int, Encoded]]] = {}
    for start, example in placed:
        shared = share_prefixes and len(example.prompt) > SHORTEST_PREFIX
        alike.setdefault(tuple(example.prompt[:SHORTEST_PREFIX]) if shared else start, []).append((start, example))
    places: list[int] = []
    for group in alike.values():
        prefix = _common_prefix([example.prompt[:-1] for _, example in group])
        for number, (start, example) in enumerate(group):
            places += range(start + (prefix if number else 0), start + example.inputs)
    return places


def _common_prefix(sequences: Sequence[list[int]]) -> int:
    """Length of what all sequences begin with: of the least and the greatest, as lists are ordered."""
    least, greatest = min(sequences), max(sequences)
    pairs = enumerate(zip(least, greatest, strict=False))
    return next((index for index, (one, other) in pairs if one != other), min(len(least), len(greatest)))
