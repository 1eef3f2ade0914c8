"""Cross-entropy on general text, which shows forgetting outside the benchmarks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import torch

from hiplora.errors import UserError
from hiplora.evaluation.forward import score_targets
from hiplora.packing.decoder import evaluating, hidden_states, positions
from hiplora.tasks.origins import ORIGINS

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedTokenizerBase

    from hiplora.tasks.source import Source

WINDOW = 512  # tokens; a window is read without the text before it, and its first token is not scored


def text_cross_entropy(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    source: Source,
    *,
    tokens: int,
    dataset: str = "text",
    split: str = "test",
    batch_tokens: int = 4 * WINDOW,
) -> dict[str, float]:
    """Mean cross-entropy in nats per token over the first ``tokens`` tokens of a general text.

    The texts are concatenated and cut into windows of 512 tokens, or of the model's positions if it has fewer. Texts
    that were sampled from a model stay separate, so that each token is scored after the context it was sampled from. A
    remainder of one token is left out.

    Returns:
        ``nll``, and ``tokens``, the number of tokens scored.

    Raises:
        UserError: the text is too short.
    """
    read = _first(tokenizer, source.load(dataset, split)["text"], tokens)
    streams = read if ORIGINS[dataset].apart else [torch.cat(read)]
    longest = min(WINDOW, positions(model) or WINDOW)
    cut = (window for ids in streams for window in ids.split(longest))
    windows = [window for window in cut if len(window) > 1]
    if not windows:
        raise UserError(
            f"{source.origin_of(dataset)} ({split}) has fewer than the 2 tokens that measuring general text needs; "
            "put more text there."
        )
    with evaluating(model):
        losses = [_losses(model, group) for group in _groups(windows, batch_tokens)]
    scored = torch.cat(losses)
    return {"nll": scored.double().mean().item(), "tokens": len(scored)}


def _groups(windows: Sequence[torch.Tensor], batch_tokens: int) -> Iterator[torch.Tensor]:
    """Batches (B, L) of windows of equal length, the longest windows first."""
    for length in sorted({len(window) for window in windows}, reverse=True):
        equal = [window for window in windows if len(window) == length]
        step = max(1, batch_tokens // length)
        for start in range(0, len(equal), step):
            yield torch.stack(equal[start : start + step])


def _first(tokenizer: PreTrainedTokenizerBase, texts: Iterable[str], tokens: int) -> list[torch.Tensor]:
    """Token ids of the first texts, ``tokens`` tokens in total."""
    found: list[torch.Tensor] = []
    for text in texts:
        ids = tokenizer.encode(text, add_special_tokens=False)[:tokens]
        found.append(torch.tensor(ids, dtype=torch.long))
        tokens -= len(ids)
        if not tokens:
            break
    return found


def _losses(model: nn.Module, windows: torch.Tensor) -> torch.Tensor:
    """Cross-entropy (N,) of every token but the first of windows (B, L)."""
    ids = windows.to(next(model.parameters()).device)
    hidden = hidden_states(model, ids)[:, :-1].flatten(0, 1)
    targets = ids[:, 1:].flatten()
    return -score_targets(model, hidden, torch.arange(len(targets), device=ids.device), targets).log_probs.cpu()
