"""Attention over packed rows on the CPU, computed sequence by sequence without a mask over whole rows.

transformers calls SDPA on packed rows with a mask over whole rows, most of which is forbidden, and SDPA's backward
pass in bf16 is slow on a CPU. Here the sequences of all rows, found by their position ids, are gathered into batches of
similar length. Attention there is a few small matrix products: scores and softmax in fp32, the rest in the model's
dtype. It is causal within a sequence, and tokens of other sequences are not in the product. Sequences may share a
prefix that is in the row once: a token at position P > 0 continues the nearest token before it at position P − 1.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, PreTrainedModel

NAME = "hiplora_blocks"


@dataclass(frozen=True)
class Bucket:
    """Segments of similar length that all continue the same prefix, which may be empty.

    ``prefix`` (P,) and ``index`` (E, T) are places in the flattened rows: those of the prefix, and of each segment
    after it. Slots past a segment's end repeat its first place and are listed in ``padding`` (flat indices into
    ``index``). ``causal`` (T, P + T) is 0 where a query may attend and −inf elsewhere; it hides the padding, which
    comes last.
    """

    prefix: Tensor
    index: Tensor
    padding: Tensor
    causal: Tensor

    @property
    def keys(self) -> Tensor:
        """(E, P + T): places of the keys for the queries in ``index``."""
        return torch.cat([self.prefix.expand(len(self.index), -1), self.index], dim=1)


@dataclass(frozen=True)
class Blocks:
    """The segments of a batch; ``place`` (R·L,) is each position's slot in the concatenated buckets."""

    buckets: tuple[Bucket, ...]
    place: Tensor


class Segment(NamedTuple):
    """A run of tokens, each continuing the one before: its first place, its length, and the places of its ancestors."""

    start: int
    length: int
    ancestors: Tensor

    @property
    def key(self) -> tuple[int, int]:
        """The bucket of a segment: its last ancestor, which determines the others, and the log₂ of its length."""
        parent = int(self.ancestors[-1]) if len(self.ancestors) else -1
        return parent, max(self.length - 1, 1).bit_length()


def segments(position_ids: Tensor) -> Iterator[Segment]:
    """The segments of (R, L) position ids; one starts with each row and where a position is not the last one plus 1."""
    rows, length = position_ids.shape
    restart = torch.ones_like(position_ids, dtype=torch.bool)
    restart[:, 1:] = position_ids.diff(dim=1) != 1
    starts = restart.flatten().nonzero().flatten().tolist()
    path = torch.empty(0, dtype=torch.long)
    for start, end in pairwise([*starts, rows * length]):
        ancestors = path[: int(position_ids[start // length, start % length])]
        path = torch.cat([ancestors, torch.arange(start, end)])
        yield Segment(start, end - start, ancestors)


def find_blocks(position_ids: Tensor) -> Blocks:
    """The blocks of (R, L) position ids: the trees that they describe, cut into segments."""
    alike: dict[tuple[int, int], list[Segment]] = {}
    for segment in segments(position_ids):
        alike.setdefault(segment.key, []).append(segment)
    place = torch.empty(position_ids.numel(), dtype=torch.long)
    buckets, offset = [], 0
    for _, group in sorted(alike.items()):
        ancestors = group[0].ancestors
        first, count = torch.tensor([(segment.start, segment.length) for segment in group]).T[..., None]
        slots = torch.arange(int(count.max()))
        inside = slots < count
        index = torch.where(inside, first + slots, first)
        place[index[inside]] = offset + inside.flatten().nonzero().flatten()
        offset += index.numel()
        causal = torch.full((len(slots), len(ancestors) + len(slots)), -torch.inf).triu(len(ancestors) + 1)
        padding = (~inside).flatten().nonzero().flatten()
        buckets.append(Bucket(ancestors, index, padding, causal))
    return Blocks(tuple(buckets), place)


class _BlockAttention(torch.autograd.Function):
    """softmax(scale · Q Kᵀ) V within blocks, for q (N, H, D), k and v (N, G, D) with G dividing H; (N, H, D).

    The backward pass recomputes the probabilities, so that nothing quadratic is kept.
    """

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, scale: float, blocks: Blocks) -> Tensor:
        ctx.save_for_backward(q, k, v)
        ctx.scale, ctx.blocks = scale, blocks
        parts = []
        for bucket in blocks.buckets:
            Q = _gather(q, bucket.index, k.shape[1])
            K, V = (_gather(x, bucket.keys, k.shape[1]) for x in (k, v))
            parts.append(
                _ungather(_probabilities(Q, K, scale, bucket).to(V.dtype) @ V, len(bucket.index), q).flatten(0, 1)
            )
        return _joined(parts, blocks, q)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v = ctx.saved_tensors
        grad = upstream[0].reshape(q.shape)
        parts: tuple[list[Tensor], ...] = ([], [], [])
        of_prefixes: list[tuple[Tensor, Tensor, Tensor]] = []
        for bucket in ctx.blocks.buckets:
            Q, K, V, dO = (
                _gather(x, index, k.shape[1], padding)
                for x, index, padding in (
                    (q, bucket.index, None),
                    (k, bucket.keys, None),
                    (v, bucket.keys, None),
                    (grad, bucket.index, bucket.padding),
                )
            )
            P = _probabilities(Q, K, ctx.scale, bucket)
            dP = (dO @ V.mT).float()
            dS = (P * (dP - (P * dP).sum(-1, keepdim=True)) * ctx.scale).to(Q.dtype)
            P = P.to(Q.dtype)
            examples, shared = len(bucket.index), len(bucket.prefix)
            parts[0].append(_ungather(dS @ K, examples, q).flatten(0, 1))
            dK, dV = (_ungather(piece, examples, like) for piece, like in ((dS.mT @ Q, k), (P.mT @ dO, v)))
            parts[1].append(dK[:, shared:].flatten(0, 1))
            parts[2].append(dV[:, shared:].flatten(0, 1))
            of_prefixes.append((bucket.prefix, dK[:, :shared].sum(0), dV[:, :shared].sum(0)))
        dq, dk, dv = (_joined(part, ctx.blocks, like) for part, like in zip(parts, (q, k, v), strict=True))
        for prefix, dK, dV in of_prefixes:
            dk.index_add_(0, prefix, dK)
            dv.index_add_(0, prefix, dV)
        return dq, dk, dv, None, None


def _gather(x: Tensor, index: Tensor, groups: int, padding: Tensor | None = None) -> Tensor:
    """(N, H, D) → (E·G, H/G·T, D): per segment and key head, the rows of all heads that share it."""
    taken = x.reshape(x.shape[0], -1).index_select(0, index.flatten())
    if padding is not None:
        taken.index_fill_(0, padding, 0.0)
    E, T = index.shape
    split = taken.view(E, T, groups, -1, x.shape[-1]).permute(0, 2, 3, 1, 4)
    return split.reshape(E * groups, -1, x.shape[-1])


def _ungather(y: Tensor, examples: int, like: Tensor) -> Tensor:
    """(E·G, H/G·T, D) → (E, T, H, D) in the dtype of ``like``."""
    H, D = like.shape[1:]
    groups = y.shape[0] // examples
    split = y.to(like.dtype).view(examples, groups, H // groups, -1, D)
    return split.permute(0, 3, 1, 2, 4).reshape(examples, -1, H, D)


def _joined(parts: list[Tensor], blocks: Blocks, like: Tensor) -> Tensor:
    flat = torch.cat(parts) if len(parts) > 1 else parts[0]
    return flat.reshape(len(flat), -1).index_select(0, blocks.place).view(like.shape)


def _probabilities(Q: Tensor, K: Tensor, scale: float, bucket: Bucket) -> Tensor:
    """Attention probabilities (E·G, H/G·T, P + T), fp32, causal."""
    causal = bucket.causal.repeat(Q.shape[1] // len(bucket.causal), 1)
    return torch.softmax(torch.baddbmm(causal, Q.float(), K.mT.float(), alpha=scale), dim=-1)


class _Memo:
    """Caches the blocks of the last position ids, because all layers of a forward pass need the same ones."""

    def __init__(self) -> None:
        self._position_ids: Tensor | None = None

    def __call__(self, position_ids: Tensor) -> Blocks:
        if self._position_ids is not position_ids:
            self._position_ids, self._blocks = position_ids, find_blocks(position_ids)
        return self._blocks


_blocks_of = _Memo()


def block_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float,
    position_ids: Tensor,
    **_: Any,
) -> tuple[Tensor, None]:
    """The attention output (R, L, H, D) of (R, H, L, D) queries and (R, G, L, D) keys and values, and None.

    This is an attention function of transformers. It ignores ``attention_mask``.
    """
    R, H, L, D = query.shape
    q, k, v = (x.transpose(1, 2).reshape(R * L, -1, D) for x in (query, key, value))
    out = _BlockAttention.apply(q, k, v, scaling, _blocks_of(position_ids))
    return out.view(R, L, H, D), None


AttentionInterface.register(NAME, block_attention)


@contextmanager
def packed_attention(lm: PreTrainedModel) -> Iterator[bool]:
    """A context in which a Llama on the CPU uses :func:`block_attention`; other models keep their attention.

    Yields whether the model uses it.
    """
    before = lm.config._attn_implementation
    if lm.config.model_type != "llama" or lm.device.type != "cpu" or lm.config.attention_dropout:
        yield False
        return
    lm.set_attn_implementation(NAME)
    try:
        yield True
    finally:
        lm.set_attn_implementation(before)
