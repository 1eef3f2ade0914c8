"""Cross-entropy on general text: what an adapter forgets where no benchmark looks."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import torch

from hiplora.errors import UserError
from hiplora.evaluation.forward import evaluating, score_targets
from hiplora.packing.decoder import hidden_states

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedTokenizerBase

    from hiplora.tasks.source import Source

WINDOW = 512  # tokens; each is read without what came before, and its first token is not scored


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

    The texts are encoded one after the other and cut into windows of 512 tokens; a remainder of one token is left
    out. Returns ``nll`` and ``tokens``, the number of tokens that were scored. UserError where the text is too short.
    """
    windows = [
        window
        for window in _stream(tokenizer, source.load(dataset, split)["text"], tokens).split(WINDOW)
        if len(window) > 1
    ]
    if not windows:
        raise UserError(
            f"{source.origin_of(dataset)} ({split}) has fewer than the 2 tokens that general text is measured on; "
            "put more text there."
        )
    whole = [window for window in windows if len(window) == WINDOW]
    step = max(1, batch_tokens // WINDOW)
    groups = [torch.stack(whole[start : start + step]) for start in range(0, len(whole), step)]
    groups.extend(window[None] for window in windows if len(window) < WINDOW)
    with evaluating(model):
        losses = [_losses(model, group) for group in groups]
    scored = torch.cat(losses)
    return {"nll": scored.double().mean().item(), "tokens": len(scored)}


def _stream(tokenizer: PreTrainedTokenizerBase, texts: Iterable[str], tokens: int) -> torch.Tensor:
    ids: list[int] = []
    for text in texts:
        ids.extend(tokenizer.encode(text, add_special_tokens=False))
        if len(ids) >= tokens:
            break
    return torch.tensor(ids[:tokens])


def _losses(model: nn.Module, windows: torch.Tensor) -> torch.Tensor:
    """Cross-entropy (N,) of every token but the first of windows (B, L)."""
    ids = windows.to(next(model.parameters()).device)
    hidden = hidden_states(model, ids)[:, :-1].flatten(0, 1)
    targets = ids[:, 1:].flatten()
    return -score_targets(model, hidden, torch.arange(len(targets), device=ids.device), targets).log_probs.cpu()
