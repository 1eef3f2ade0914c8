"""The forward pass of training and evaluation: hidden states at all positions, logits only where they are needed.

The logits of whole sequences, (batch, sequence, vocabulary), would be the largest tensor of the pass, and most of them
are never used. Here the decoder runs to its last hidden state, and only the needed positions, gathered to a contiguous
(N, hidden), pass through the output embedding.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast
from weakref import WeakSet

import torch
from torch import Tensor, nn
from transformers import Cache

from hiplora.errors import UserError
from hiplora.packing.masks import layer_masks

_PLAIN_HEADS: WeakSet[nn.Module] = WeakSet()  # models that check_head has accepted


def causal_lm(model: nn.Module) -> Any:
    """The transformers model inside a PEFT model, with its adapters; a plain model is returned unchanged."""
    return cast(Any, model).get_base_model() if hasattr(model, "get_base_model") else model


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """A context in inference and evaluation mode; it restores every module's training flag, even after an error."""
    flags = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        for module, training in flags:
            module.training = training


def positions(model: nn.Module) -> int | None:
    """The number of tokens that a model can read; None if its configuration sets no limit."""
    return getattr(causal_lm(model).get_decoder().config, "max_position_embeddings", None)


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
        allowed: (B, 1, L, keys) bool, the keys that each query may see, before the architecture's windows; None is
            causal attention within each block of ``positions``, which is right for rows padded on the right.
        positions: (B, L), the position of each token; None counts from 0.
        cache: keys and values of earlier tokens; extended by those of these tokens.

    Raises:
        UserError: ``allowed`` is given, and the model does not use SDPA.
    """
    lm = causal_lm(model)
    attention = lm.config._attn_implementation
    if allowed is not None and attention != "sdpa":
        raise UserError(
            f"evaluation needs attn_implementation=sdpa, but the model was loaded with {attention}; load it with "
            "attn_implementation='sdpa'."
        )
    decoder = lm.get_decoder()
    given = {
        "attention_mask": None if allowed is None else layer_masks(decoder.config, allowed),
        "position_ids": positions,
        "past_key_values": cache,
    }
    arguments = {name: value for name, value in given.items() if value is not None}  # not every model takes all of them
    return decoder(input_ids=ids, use_cache=cache is not None, **arguments).last_hidden_state


def logits(model: nn.Module, hidden: Tensor) -> Tensor:
    """Logits (N, vocabulary) in fp32 of hidden states (N, hidden). The first call raises as :func:`check_head`."""
    check_head(model)
    return causal_lm(model).get_output_embeddings()(hidden.contiguous()).float()


@torch.no_grad()
def check_head(model: nn.Module) -> None:
    """Refuse a model that changes its logits after the output layer (by scaling or soft-capping).

    Raises:
        UserError: its logits are not its output layer applied to its last hidden state.
    """
    lm, was_training = causal_lm(model), model.training
    if lm in _PLAIN_HEADS:
        return
    model.eval()
    ids = torch.arange(4, device=next(lm.parameters()).device)[None]
    head = lm.get_output_embeddings()
    expected = lm(input_ids=ids, use_cache=False).logits
    same = torch.allclose(
        head(lm.get_decoder()(input_ids=ids, use_cache=False).last_hidden_state).float(),
        expected.float(),
        rtol=1e-2,
        atol=1e-2 * float(expected.abs().max()),
    )
    model.train(was_training)
    if not same or getattr(lm.get_decoder().config, "final_logit_softcapping", None):
        raise UserError(
            f"{type(lm).__name__} changes its logits after the output layer, which losses and scores here would "
            "ignore: choose a model without logit scaling or soft-capping, such as a Llama"
        )
    _PLAIN_HEADS.add(lm)
