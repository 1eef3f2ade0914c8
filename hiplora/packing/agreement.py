"""Tests once per model whether it computes sequences in one row as it computes them separately.

Two short sequences with a common prefix are read alone and in one row. Architectures with full attention or a sliding
window agree. If one does not (it has a recurrent state, or ignores position ids), each sequence gets its own row, and
no cache is used. The test makes a sliding window short, so that it has an effect.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from transformers import DynamicCache

from hiplora.packing.batches import tree_batch
from hiplora.packing.decoder import causal_lm, evaluating, hidden_states
from hiplora.packing.masks import other_attention
from hiplora.packing.rows import Row, as_trees, side_by_side
from hiplora.packing.sequences import Encoded

logger = logging.getLogger(__name__)

STEM, BRANCH, WINDOW = 8, 6, 4  # tokens
TOLERANCE = {torch.float32: 1e-3, torch.float64: 1e-6}  # relative; attending to wrong tokens gives errors near 1
ROUNDED = 0.1  # of narrower dtypes

_Known = WeakKeyDictionary[nn.Module, bool]
_TREES, _ROWS = _Known(), _Known()


def reads_trees(model: nn.Module) -> bool:
    """Whether a model computes trees of sequences correctly from masks and positions, and with a cache."""
    return _known(model, _TREES, _trees_agree, "a common beginning once")


def reads_rows(model: nn.Module) -> bool:
    """Whether a model separates sequences side by side in a row by their position ids alone."""
    return _known(model, _ROWS, _rows_agree, "several sequences in a row")


def _known(model: nn.Module, known: _Known, agree: Callable[[Any, list[Encoded]], bool], what: str) -> bool:
    lm = causal_lm(model)
    if lm not in known:
        if not _finite(lm):
            return True  # a diverged adapter is attached, which says nothing about the architecture
        known[lm] = _tested(lm, agree, what)
    return known[lm]


def _tested(lm: Any, agree: Callable[[Any, list[Encoded]], bool], what: str) -> bool:
    reason = other_attention(lm.get_decoder().config)
    if reason is None and lm.config._attn_implementation != "sdpa":
        reason = f"attn_implementation={lm.config._attn_implementation}"
    if reason is None:
        with evaluating(lm), _short_window(lm):
            try:
                reason = None if agree(lm, _sequences(lm)) else "its outputs would differ"
            except torch.OutOfMemoryError:
                raise
            except Exception as error:  # a model without masks, positions or cache may raise anything
                reason = f"{type(error).__name__}: {' '.join(str(error).split())[:120]}"
    if reason is not None:
        logger.warning("%s cannot compute %s (%s): sequences are read one by one", type(lm).__name__, what, reason)
    return reason is None


def _finite(lm: Any) -> bool:
    with evaluating(lm):
        ids = torch.tensor([_sequences(lm)[0].prompt], device=next(lm.parameters()).device)
        return bool(torch.isfinite(hidden_states(lm, ids)).all())


def _sequences(lm: Any) -> list[Encoded]:
    """Two sequences with a common prefix; their ids are spread over the vocabulary."""
    size = lm.get_input_embeddings().weight.shape[0]
    ids = [(7 * number + 3) % size for number in range(STEM + 2 * (BRANCH + 1))]
    stem, rest = ids[:STEM], ids[STEM:]
    return [Encoded(stem, rest[: BRANCH + 1]), Encoded(stem, rest[BRANCH + 1 :])]


@contextmanager
def _short_window(lm: Any) -> Iterator[None]:
    config = lm.get_decoder().config
    window = getattr(config, "sliding_window", None)
    if window is None:
        yield
        return
    config.sliding_window = WINDOW
    try:
        yield
    finally:
        config.sliding_window = window


def _trees_agree(lm: Any, sequences: list[Encoded]) -> bool:
    (row,) = as_trees(sequences, row_tokens=STEM + 2 * BRANCH)
    batch = tree_batch([row], device=lm.device)
    found = hidden_states(lm, batch.ids, allowed=batch.allowed, positions=batch.positions)[0]
    in_row = all(
        _same(found[row.ancestry(_last(row, owner))], _alone(lm, sequence)) for owner, sequence in enumerate(sequences)
    )
    return in_row and _same(_step_by_step(lm, sequences[0]), _alone(lm, sequences[0])[-1:])


def _step_by_step(lm: Any, sequence: Encoded) -> Tensor:
    """The hidden state (1, hidden) of the last token, computed with a cache of all others."""
    ids = torch.tensor([sequence.path], device=lm.device)
    length, cache = ids.shape[1], DynamicCache()
    hidden_states(lm, ids[:, :-1], cache=cache)
    seen = torch.ones(1, 1, 1, length, dtype=torch.bool, device=lm.device)
    place = torch.tensor([[length - 1]], device=lm.device)
    return hidden_states(lm, ids[:, -1:], allowed=seen, positions=place, cache=cache)[0]


def _rows_agree(lm: Any, sequences: list[Encoded]) -> bool:
    row = side_by_side(sequences)
    ids, positions = (torch.tensor([values], device=lm.device) for values in (row.ids, row.positions))
    found = hidden_states(lm, ids, positions=positions)[0].split([len(each.path) for each in sequences])
    return all(_same(part, _alone(lm, sequence)) for part, sequence in zip(found, sequences, strict=True))


def _last(row: Row, owner: int) -> int:
    return max(read for read, mine in zip(row.reads, row.owners, strict=True) if mine == owner)


def _alone(lm: Any, sequence: Encoded) -> Tensor:
    return hidden_states(lm, torch.tensor([sequence.path], device=lm.device))[0]


def _same(one: Tensor, other: Tensor) -> bool:
    difference = (one.double() - other.double()).norm() / other.double().norm()
    return bool(difference <= TOLERANCE.get(other.dtype, ROUNDED))
