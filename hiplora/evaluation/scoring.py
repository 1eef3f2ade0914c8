"""Log-likelihoods of continuations, and cross-entropy of running text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from hiplora.evaluation.forward import hidden_states, score_targets
from hiplora.evaluation.rows import Row, batches, build_row, collate


@dataclass(frozen=True)
class Continuations:
    """A prompt and the token ids that may follow it."""

    prompt: Sequence[int]
    options: Sequence[Sequence[int]]


@dataclass(frozen=True)
class Scored:
    """Log-likelihood of one continuation (nats, summed), whether it is the greedy one, and its number of tokens."""

    log_prob: float
    greedy: bool
    tokens: int


def score_continuations(
    model: nn.Module,
    asked: Sequence[Continuations],
    *,
    batch_tokens: int,
    max_length: int,
    done: Callable[[int], object] = lambda count: None,
) -> list[list[Scored]]:
    """Score every option of every prompt.

    Args:
        model: a causal language model, plain or PEFT, in evaluation mode.
        batch_tokens: padded tokens per forward pass.
        max_length: longest sequence that the model takes.
        done: told how many options each batch has finished.
    """
    device = next(model.parameters()).device
    rows = [build_row(item.prompt, item.options, max_length=max_length) for item in asked]
    results: list[list[Scored]] = [[] for _ in asked]
    for group in batches(rows, tokens=batch_tokens):
        scores = _score_batch(model, rows, group, device=device)
        for index, (log_probs, greedy) in zip(group, scores, strict=True):
            results[index] = _per_option(rows[index], log_probs, greedy, count=len(asked[index].options))
        done(sum(len(asked[index].options) for index in group))
    return results


def _score_batch(
    model: nn.Module, rows: Sequence[Row], group: list[int], *, device: torch.device
) -> list[tuple[list[float], list[bool]]]:
    batch = collate(rows, group, device=device)
    hidden = hidden_states(model, batch.ids, allowed=batch.allowed, positions=batch.positions).flatten(0, 1)
    width = batch.ids.shape[1]
    reads = [line * width + read for line, index in enumerate(group) for read in rows[index].reads]
    positions = torch.tensor(reads, device=device)
    targets = torch.tensor([target for index in group for target in rows[index].targets], device=device)
    needed, where = positions.unique(return_inverse=True)
    scores = score_targets(model, hidden[needed], where, targets)
    sizes = [len(rows[index].targets) for index in group]
    pieces = zip(scores.log_probs.split(sizes), scores.greedy.split(sizes), strict=True)
    return [(log_probs.tolist(), greedy.tolist()) for log_probs, greedy in pieces]


def _per_option(row: Row, log_probs: list[float], greedy: list[bool], *, count: int) -> list[Scored]:
    found = []
    for option in range(count):
        mine = [index for index, owner in enumerate(row.options) if owner == option]
        total = sum(log_probs[index] for index in mine)
        found.append(Scored(total, all(greedy[index] for index in mine), len(mine)))
    return found
