"""Turns rows into tensors: a micro-batch to train on, or a batch of trees to evaluate.

Padding is at the end of a row and a block of its own: nothing attends to it. If a model gets position ids without an
attention mask and a cache, transformers finds the restarts of position ids and makes the attention block-diagonal. With
a mask or a cache it silently falls back to one causal block.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hiplora.packing.rows import Line, Row, side_by_side
from hiplora.packing.sequences import Encoded, common_prefix

SHORTEST_PREFIX = 16  # tokens that prompts must share for their common prefix to be computed once


def micro_batch(
    lines: Sequence[Line], *, pad_id: int, share_prefixes: bool = False, apart: bool = False
) -> dict[str, Any]:
    """One micro-batch to train on, as a dict of tensors and counts.

    ``input_ids`` and ``position_ids`` are (rows, L), L the longest row. ``label_index`` (n,) are the label positions
    among the rows × L positions of the flattened batch, and ``label_ids`` (n,) the tokens to predict there. ``places``
    (N,) are the positions that need to be computed, see :func:`_places`. ``tokens`` and ``examples`` are counts.
    ``apart`` puts every example in its own row, where ``position_ids`` are None because the default is right.
    """
    if apart:
        lines = [Line((example,), example.inputs) for line in lines for example in line.examples]
    rows = [side_by_side(line.examples) for line in lines]
    length = max(len(row.ids) for row in rows)
    labels = [number * length + read for number, row in enumerate(rows) for read in row.reads]
    return {
        "input_ids": _padded([row.ids for row in rows], length, filler=[pad_id] * length),
        "position_ids": None if apart else _padded([row.positions for row in rows], length, filler=range(length)),
        "label_index": torch.tensor(labels),
        "label_ids": torch.tensor([target for row in rows for target in row.targets]),
        "places": torch.tensor(_places(_starts(lines, length), share_prefixes=share_prefixes)),
        "tokens": sum(line.tokens for line in lines),
        "examples": sum(len(line.examples) for line in lines),
    }


def _starts(lines: Sequence[Line], length: int) -> list[tuple[int, Encoded]]:
    """Every example with its first position in the flattened batch."""
    found = []
    for number, line in enumerate(lines):
        start = number * length
        for example in line.examples:
            found.append((start, example))
            start += example.inputs
    return found


def _places(placed: Sequence[tuple[int, Encoded]], *, share_prefixes: bool) -> list[int]:
    """The positions that need to be computed: those of the examples, without padding and repeated prefixes.

    ``placed`` has each example with its first position. With ``share_prefixes``, prompts that agree in their first
    ``SHORTEST_PREFIX`` tokens form a group whose common prefix (without any prompt's last token, which predicts) is
    computed once. The first example of a group is complete; the others follow it directly, without the prefix. So each
    group is a tree with one stem.
    """
    alike: dict[object, list[tuple[int, Encoded]]] = {}
    for start, example in placed:
        shared = share_prefixes and len(example.prompt) > SHORTEST_PREFIX
        alike.setdefault(tuple(example.prompt[:SHORTEST_PREFIX]) if shared else start, []).append((start, example))
    places: list[int] = []
    for group in alike.values():
        prefix = common_prefix([example.prompt[:-1] for _, example in group])
        for number, (start, example) in enumerate(group):
            places += range(start + (prefix if number else 0), start + example.inputs)
    return places


@dataclass(frozen=True)
class Batch:
    """Rows padded on the right: ``ids`` and ``positions`` (B, L), ``allowed`` (B, 1, L, L) bool.

    ``positions`` and ``allowed`` are None if plain causal attention is right for all rows.
    """

    ids: Tensor
    positions: Tensor | None
    allowed: Tensor | None


def tree_batch(rows: Sequence[Row], *, device: torch.device) -> Batch:
    """The tensors of one group of rows."""
    length = max(len(row.ids) for row in rows)
    ids = _padded([row.ids for row in rows], length, filler=[0] * length).to(device)
    if not any(row.branches for row in rows):
        return Batch(ids, None, None)
    positions = _padded([row.positions for row in rows], length, filler=range(length))
    allowed = torch.from_numpy(np.stack([visible(row) for row in positions.tolist()]))[:, None]
    return Batch(ids, positions.to(device), allowed.to(device))


def visible(positions: Sequence[int]) -> np.ndarray:
    """The keys that each token of a row sees, (L, L) bool: its ancestors and itself."""
    allowed = np.eye(len(positions), dtype=bool)
    latest: dict[int, int] = {}
    for place, position in enumerate(positions):
        if position:
            allowed[place] |= allowed[latest[position - 1]]
        latest[position] = place
    return allowed


def _padded(lists: Sequence[list[int]], length: int, *, filler: Sequence[int]) -> Tensor:
    return torch.tensor([[*entries, *filler[: length - len(entries)]] for entries in lists])
