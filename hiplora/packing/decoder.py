"""One forward pass as training and evaluation need it: hidden states first, logits only where something is read.

Logits of whole sequences, (batch, sequence, vocabulary), are the largest tensor of a naive pass and most of them are
never looked at. Here the decoder runs to its last hidden state, and only the needed positions of it, gathered to a
contiguous (N, hidden), pass through the output embedding.
"""

from __future__ import annotations

from typing import Any, cast

from torch import Tensor, nn
from transformers import Cache

from hiplora.errors import UserError


def causal_lm(model: nn.Module) -> Any:
    """The transformers model inside a PEFT model, adapters still in place; a plain model is returned as it is."""
    return cast(Any, model).get_base_model() if hasattr(model, "get_base_model") else model


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
            padded on the right, within each block of ``positions``.
        positions: (B, L) position of each token; None counts from 0.
        cache: keys and values of earlier tokens, extended by these.
    """
    lm = causal_lm(model)
    attention = lm.config._attn_implementation
    if allowed is not None and attention != "sdpa":
        raise UserError(
            f"evaluation needs attn_implementation=sdpa, the model was loaded with {attention}; load it with "
            "attn_implementation='sdpa'."
        )
    output = lm.get_decoder()(
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
