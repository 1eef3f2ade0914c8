"""Log-probabilities of target tokens, from a model's hidden states."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from hiplora.packing.decoder import causal_lm, logits

LOGIT_BYTES = 2**26  # size of a slice of fp32 logits; larger slices do not fit the processor's cache


class Scores(NamedTuple):
    """For N targets: the log-probability (N,) in nats, and whether the target is the likeliest token (N,)."""

    log_probs: Tensor
    greedy: Tensor


def score_targets(model: nn.Module, hidden: Tensor, rows: Tensor, targets: Tensor) -> Scores:
    """Log-probability of each target token at its position.

    Args:
        hidden: (P, hidden) hidden states of the positions to read.
        rows: (N,) index into ``hidden`` for each target; several targets may share a position.
        targets: (N,) token ids.
    """
    vocabulary = causal_lm(model).get_output_embeddings().weight.shape[0]
    step = max(1, LOGIT_BYTES // (4 * vocabulary))
    log_probs = torch.empty(len(rows), device=hidden.device)
    greedy = torch.empty(len(rows), dtype=torch.bool, device=hidden.device)
    for start in range(0, hidden.shape[0], step):
        inside = (rows >= start) & (rows < start + step)
        local, wanted = rows[inside] - start, targets[inside]
        values = logits(model, hidden[start : start + step])
        log_probs[inside] = values[local, wanted] - values.logsumexp(dim=-1)[local]
        greedy[inside] = values.argmax(dim=-1)[local] == wanted
    return Scores(log_probs, greedy)
