"""Attention masks for rows that are not plain sequences, with the sliding windows of the decoder's layers.

transformers passes a four-dimensional mask unchanged to the layers, so sliding windows must be part of it.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

FULL, SLIDING = "full_attention", "sliding_attention"
# Configuration fields of other kinds of restricted attention; None or absent if a model has none.
OTHERS = ("attention_chunk_size", "attention_types", "window_size", "attention_window_size", "local_attention")


def layer_masks(config: Any, allowed: Tensor) -> Tensor | dict[str, Tensor]:
    """The masks of a decoder's layers from ``allowed`` (B, 1, L, keys) bool: the keys that a query sees without window.

    One mask if all layers are of one kind, else a dict with one mask per kind, as such models expect.
    """
    window = getattr(config, "sliding_window", None)
    if SLIDING in _kinds(config):
        return {FULL: allowed, SLIDING: windowed(allowed, window)}
    return allowed if window is None else windowed(allowed, window)


def windowed(allowed: Tensor, window: int | None) -> Tensor:
    """``allowed`` with only the last ``window`` keys of each query: itself and its nearest ancestors."""
    if window is None:
        return allowed
    behind = allowed.flip(-1).cumsum(-1).flip(-1)  # number of allowed keys from each key on
    return allowed & (behind <= window)


def other_attention(config: Any) -> str | None:
    """The field by which a decoder's attention is neither full nor a sliding window; None if it is one of these."""
    if more := _kinds(config) - {FULL, SLIDING}:
        return f"layer_types={', '.join(sorted(more))}"
    return next((name for name in OTHERS if getattr(config, name, None)), None)


def _kinds(config: Any) -> set[str]:
    return set(getattr(config, "layer_types", None) or ())
