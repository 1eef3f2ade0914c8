"""One forward pass as evaluation needs it: hidden states first, logits only where something is read.

Logits of whole sequences, (batch, sequence, vocabulary), are the largest tensor of a naive evaluation and most of
them are never looked at. Here the decoder runs to its last hidden state, the needed positions are gathered to a
contiguous (N, hidden), and only those pass through the output embedding, in slices.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from transformers import Cache, PreTrainedModel

from hiplora.errors import UserError

LOGIT_BYTES = 2**26  # of one fp32 slice of logits; larger ones leave the processor's cache


class Scores(NamedTuple):
    """What is read at N positions, given one target each: log-probability (N,) in nats, is it the likeliest (N,)."""

    log_probs: Tensor
    greedy: Tensor


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Inference mode and evaluation mode; every module's training flag is put back, also after an error."""
    flags = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        for module, training in flags:
            module.training = training


def causal_lm(model: nn.Module) -> PreTrainedModel:
    """The transformers model inside a PEFT model, adapters still in place; a plain model is returned as it is."""
    get_base_model = getattr(model, "get_base_model", None)
    base = cast(PreTrainedModel, model if get_base_model is None else get_base_model())
    if base.config._attn_implementation != "sdpa":
        raise UserError(
            f"evaluation needs attn_implementation=sdpa, the model was loaded with "
            f"{base.config._attn_implementation}; load it with attn_implementation='sdpa'."
        )
    return base


def hidden_states(
    model: nn.Module,
    ids: Tensor,
    *,
    allowed: Tensor | None = None,
    positions: Tensor | None = None,
    cache: Cache | None = None,
) -> Tensor:
    """Last hidden states (B, L, hidden) of token ids (B, L).

    Args:
        allowed: (B, 1, L, keys) bool, which key each query may see; None is plain causal attention, right for rows
            padded on the right.
        positions: (B, L) position of each token; None counts from 0.
        cache: keys and values of earlier tokens, extended by these.
    """
    decoder = causal_lm(model).get_decoder()
    output = decoder(
        input_ids=ids,
        attention_mask=allowed,
        position_ids=positions,
        past_key_values=cache,
        use_cache=cache is not None,
    )
    return output.last_hidden_state


def logits(model: nn.Module, hidden: Tensor) -> Tensor:
    """Logits (N, vocabulary) in fp32 of hidden states (N, hidden)."""
    return causal_lm(model).get_output_embeddings()(hidden.contiguous()).float()


def score_targets(model: nn.Module, hidden: Tensor, rows: Tensor, targets: Tensor) -> Scores:
    """Log-probability of each target token at its position.

    Args:
        hidden: (P, hidden) hidden states of the positions that are read.
        rows: (N,) index into ``hidden`` per target; several targets may share a position.
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
