"""Choosing the next token: greedily, or sampled with temperature and nucleus from fixed random numbers.

Each completion has its own stream of uniform numbers, made from the seed and its prompt. A token is the one whose
interval of the cumulative distribution contains the number. So a completion does not depend on the others in its batch,
and no global random state is read or changed.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

LIKELIEST = 64  # likeliest tokens, which nearly always contain the nucleus; sorting the whole vocabulary is slow
NEGLIGIBLE = 1e-6


@dataclass(frozen=True, kw_only=True)
class Decoding:
    """How completions are generated.

    Args:
        max_new_tokens: longest completion.
        stops: strings before which a completion ends.
        temperature: 0 takes the likeliest token; above 0, tokens are sampled.
        top_p: the nucleus is the smallest set of likeliest tokens with at least this probability.
        seed: seeds the samples.
        raw: return the whole text, decoded without the prompt and without special tokens; the caller cuts it.
    """

    max_new_tokens: int
    stops: tuple[str, ...]
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0
    raw: bool = False


def uniforms(prompt: Sequence[int], *, copies: int, decoding: Decoding) -> Tensor:
    """Random numbers (copies, max_new_tokens) in [0, 1) for the completions of one prompt."""
    key = f"{decoding.seed}:{','.join(map(str, prompt))}"
    seed = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") >> 1
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(copies, decoding.max_new_tokens, generator=generator)


def next_tokens(logits: Tensor, owners: Tensor, numbers: Tensor, decoding: Decoding) -> Tensor:
    """The next token (C,) of each completion.

    Args:
        logits: (R, vocabulary) fp32, one row per distinct sequence.
        owners: (C,) the row of each completion.
        numbers: (C,) the uniform number of each completion.
    """
    if decoding.temperature == 0.0:
        return logits.argmax(dim=-1)[owners]
    values, tokens = logits.topk(min(LIKELIEST, logits.shape[-1]), dim=-1)
    values = values / decoding.temperature
    total = _log_mass(logits, values, temperature=decoding.temperature)
    cumulative = (values - total).exp().cumsum(dim=-1)
    drawn = _draw(cumulative[owners], tokens[owners], numbers, top_p=decoding.top_p)
    wide = (cumulative[:, -1] < decoding.top_p)[owners].nonzero().squeeze(-1)
    if len(wide):
        rows, places = owners[wide].unique(return_inverse=True)
        values, tokens = (logits[rows] / decoding.temperature).sort(dim=-1, descending=True)
        cumulative = (values - total[rows]).exp().cumsum(dim=-1)
        drawn[wide] = _draw(cumulative[places], tokens[places], numbers[wide], top_p=decoding.top_p)
    return drawn


def _log_mass(logits: Tensor, likeliest: Tensor, *, temperature: float) -> Tensor:
    """log Σ exp(logits / temperature), (R, 1); the sum skips all but the likeliest (R, K) if the rest is below 1e-6."""
    total = likeliest.logsumexp(dim=-1, keepdim=True)
    others = likeliest[:, -1:] + math.log(logits.shape[-1]) - total
    heavy = (others > math.log(NEGLIGIBLE)).squeeze(-1).nonzero().squeeze(-1)
    if len(heavy):
        total[heavy] = (logits[heavy] / temperature).logsumexp(dim=-1, keepdim=True)
    return total


def _draw(cumulative: Tensor, tokens: Tensor, numbers: Tensor, *, top_p: float) -> Tensor:
    """Tokens (C,) drawn from the nucleus by inversion; ``cumulative`` (C, K) is over ``tokens`` (C, K), descending."""
    last = (cumulative < top_p).sum(dim=-1).clamp(max=cumulative.shape[-1] - 1)
    mass = cumulative.gather(-1, last[:, None])
    drawn = (cumulative <= numbers[:, None] * mass).sum(dim=-1)
    return tokens.gather(-1, torch.minimum(drawn, last)[:, None]).squeeze(-1)
