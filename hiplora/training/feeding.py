"""The examples that a training sees and their order in micro-batches, both determined by the seed."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

import torch

from hiplora.errors import UserError
from hiplora.packing.batches import micro_batch
from hiplora.packing.sequences import Encoded
from hiplora.training.stream import Fitted, epoch_rows, fit, micro_batches, row_stream

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from hiplora.training.options import Training

logger = logging.getLogger(__name__)


def fitting(encoded: Sequence[Encoded], training: Training, most: int | None) -> Fitted:
    """The examples, cut or dropped to fit a row and the model's ``most`` tokens; the numbers of both are logged too.

    Raises:
        UserError: no example fits.
    """
    longest, name = training.row_tokens, "training.row_tokens"
    if most is not None and most < longest:
        longest, name = most, "the model's positions"
    fitted = fit(encoded, row_tokens=longest)
    if fitted.truncated or fitted.dropped:
        logger.warning(
            "of %d examples, %d were cut and %d dropped: longer than %s=%d",
            *(len(encoded), fitted.truncated, fitted.dropped, name, longest),
        )
    if not fitted.examples:
        raise UserError(
            f"none of the {len(encoded)} training examples fits {name}={longest}: give longer rows, or a backbone with "
            "more positions"
        )
    return fitted


def announce(examples: Sequence[Encoded], training: Training, *, seed: int, resumed_from: int | None) -> None:
    """Log the size of a training: steps, epochs, rows, and the step it resumes from."""
    rows = epoch_rows(examples, row_tokens=training.row_tokens, seed=seed, epoch=0)
    total = training.steps * training.rows_per_step
    logger.info(
        "%d steps of %d rows are about %.2f epochs over %d examples (%d rows of %d positions, %.0f %% filled)",
        *(training.steps, training.rows_per_step, total / len(rows), len(examples), len(rows)),
        *(training.row_tokens, 100 * sum(row.inputs for row in rows) / (len(rows) * training.row_tokens)),
    )
    if resumed_from is not None:
        logger.info("resumed from the checkpoint of step %d", resumed_from)


def in_shards(examples: Sequence[Encoded], shards: int, training: Training, *, seed: int) -> list[Sequence[Encoded]]:
    """The examples in ``shards`` disjoint parts whose sizes differ by at most one, drawn by the seed.

    One part is the examples in their own order.

    Raises:
        UserError: rows_per_step is not a multiple of the number of parts, or there are too few examples.
    """
    if shards == 1:
        return [examples]
    if training.rows_per_step % shards:
        raise UserError(
            f"training.rows_per_step={training.rows_per_step} cannot be split evenly over the method's {shards} shards "
            f"(method.clients): give a multiple of {shards}"
        )
    if len(examples) < shards:
        raise UserError(f"{len(examples)} examples are too few for {shards} shards: lower method.clients")
    order = torch.randperm(len(examples), generator=torch.Generator().manual_seed(seed)).tolist()
    return [[examples[index] for index in order[shard::shards]] for shard in range(shards)]


def batches(
    shards: Sequence[Sequence[Encoded]],
    training: Training,
    *,
    seed: int,
    step: int,
    tokenizer: PreTrainedTokenizerBase,
    apart: bool,
) -> Iterator[dict[str, Any]]:
    """The collated micro-batches from optimizer step ``step`` on, without end; the seed determines their rows.

    Within a step, the shards follow each other with equally many rows. ``apart`` puts every example in its own row.
    """
    share = training.rows_per_step // len(shards)
    streams = [
        micro_batches(
            islice(row_stream(examples, row_tokens=training.row_tokens, seed=seed), step * share, None),
            rows_per_step=share,
            micro_batch_rows=training.micro_batch_rows,
        )
        for examples in shards
    ]
    pad_id = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else 0
    while True:
        for shard, stream in enumerate(streams):
            for lines in islice(stream, math.ceil(share / training.micro_batch_rows)):
                batch = micro_batch(lines, pad_id=pad_id, share_prefixes=training.share_prefixes, apart=apart)
                yield {**batch, "shard": shard}
