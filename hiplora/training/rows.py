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


def collate(rows: Sequence[Row], *, pad_id: int) -> dict[str, Any]:
    """One micro-batch.

    Returns ``input_ids`` and ``position_ids`` of shape (rows, L), L the longest row, and the label positions
    of the flattened batch: ``label_index`` (n,) into its rows × L positions and ``label_ids`` (n,), the tokens
    to be predicted there; ``places`` (N,) are the positions that are no padding; ``tokens`` and ``examples`` are
    counts. Padding is a block of its own at the end of a row: nothing attends to it.
    """
    length = max(row.inputs for row in rows)
    ids: list[int] = []
    positions: list[int] = []
    index: list[int] = []
    labels: list[int] = []
    places: list[int] = []
    for number, row in enumerate(rows):
        start = number * length
        places += range(start, start + row.inputs)
        for example in row.examples:
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
        "places": torch.tensor(places),
        "tokens": sum(row.tokens for row in rows),
        "examples": sum(len(row.examples) for row in rows),
    }
