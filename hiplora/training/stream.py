"""The rows and micro-batches of a training; the seed alone decides which examples are in which row, and when."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import torch

from hiplora.packing.rows import Line, first_fit
from hiplora.packing.sequences import Encoded


@dataclass(frozen=True)
class Fitted:
    """Examples that fit a row, and the numbers that were cut or dropped for that."""

    examples: list[Encoded]
    truncated: int
    dropped: int


def fit(encoded: Sequence[Encoded], *, row_tokens: int) -> Fitted:
    """The examples, with answers cut at the end of a row; those that would keep no answer token are dropped.

    Raises:
        ValueError: an example has no answer.
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


def epoch_rows(encoded: Sequence[Encoded], *, row_tokens: int, seed: int, epoch: int) -> list[Line]:
    """The rows of one epoch: every example once, in an order that depends on seed and epoch alone."""
    generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
    order = torch.randperm(len(encoded), generator=generator).tolist()
    return first_fit(encoded, row_tokens=row_tokens, order=order)


def row_stream(encoded: Sequence[Encoded], *, row_tokens: int, seed: int) -> Iterator[Line]:
    """Endless rows: epoch after epoch, each with its own permutation."""
    epoch = 0
    while True:
        yield from epoch_rows(encoded, row_tokens=row_tokens, seed=seed, epoch=epoch)
        epoch += 1


def micro_batches(rows: Iterator[Line], *, rows_per_step: int, micro_batch_rows: int) -> Iterator[list[Line]]:
    """The micro-batches of optimizer steps from a stream of rows; the last one of a step may be smaller."""
    while True:
        for start in range(0, rows_per_step, micro_batch_rows):
            yield list(islice(rows, min(micro_batch_rows, rows_per_step - start)))
