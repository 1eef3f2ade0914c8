"""What each layer of a decoder may see of a row, where the row is no plain sequence: some layers look back a window.

transformers takes a mask of four dimensions as it is, for every layer alike, so that the windows must be in it.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

FULL, SLIDING = "full_attention", "sliding_attention"
# Options of configurations that restrict attention in ways of their own; None or absent where a model has none.
OTHERS = ("attention_chunk_size", "attention_types", "window_size", "attention_window_size", "local_attention")


def layer_masks(config: Any, allowed: Tensor) -> Tensor | dict[str, Tensor]:
    """The masks of a decoder's layers from (B, 1, L, keys) bool, which key each query may see without a window.

    One mask where all layers are alike, else one for each kind of layer, as models with several kinds take them.
    """
    window = getattr(config, "sliding_window", None)
    if SLIDING in _kinds(config):
        return {FULL: allowed, SLIDING: windowed(allowed, window)}
    return allowed if window is None else windowed(allowed, window)


def windowed(allowed: Tensor, window: int | None) -> Tensor:
    """Of the keys that each query may see, the last ``window``: its nearest ancestors and itself."""
    if window is None:
        return allowed
    behind = allowed.flip(-1).cumsum(-1).flip(-1)  # how many of them stand at a key or after it
    return allowed & (behind <= window)


def other_attention(config: Any) -> str | None:
    """The option by which a decoder's layers see something else than all tokens or a window; None where none does."""
    if more := _kinds(config) - {FULL, SLIDING}:
        return f"layer_types={', '.join(sorted(more))}"
    return next((name for name in OTHERS if getattr(config, name, None)), None)


def _kinds(config: Any) -> set[str]:
    return set(getattr(config, "layer_types", None) or ())
