"""Log-likelihoods of continuations."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from hiplora.evaluation.forward import Scores, score_targets
from hiplora.packing.agreement import reads_trees
from hiplora.packing.batches import tree_batch
from hiplora.packing.decoder import hidden_states
from hiplora.packing.rows import Row, alone, as_trees, batches
from hiplora.packing.sequences import Encoded


@dataclass
class Scored:
    """Log-likelihood of a continuation (nats, summed), whether greedy decoding gives it, and its number of tokens."""

    log_prob: float = 0.0
    greedy: bool = True
    tokens: int = 0

    def take(self, log_prob: float, greedy: bool) -> None:
        """Count one more token."""
        self.log_prob += log_prob
        self.greedy = self.greedy and greedy
        self.tokens += 1


def score_continuations(
    model: nn.Module,
    sequences: Sequence[Encoded],
    *,
    batch_tokens: int,
    done: Callable[[Mapping[int, Scored]], object] = lambda finished: None,
) -> list[Scored]:
    """Score every continuation after its prompt.

    Args:
        model: a causal language model, plain or PEFT, in evaluation mode.
        batch_tokens: padded tokens per forward pass.
        done: called after each batch with the scores that it has finished, by index.
    """
    results = [Scored() for _ in sequences]
    laid_out = as_trees(sequences) if reads_trees(model) else alone(sequences)
    for rows in batches(laid_out, tokens=batch_tokens):
        scores = _score_rows(model, rows)
        owners = [owner for row in rows for owner in row.owners]
        for owner, log_prob, greedy in zip(owners, scores.log_probs.tolist(), scores.greedy.tolist(), strict=True):
            results[owner].take(log_prob, greedy)
        done({owner: results[owner] for owner in owners})
    return results


def _score_rows(model: nn.Module, rows: list[Row]) -> Scores:
    """Scores of all targets of the rows, in order; logits of a position with several targets are computed once."""
    device = next(model.parameters()).device
    batch = tree_batch(rows, device=device)
    hidden = hidden_states(model, batch.ids, allowed=batch.allowed, positions=batch.positions).flatten(0, 1)
    width = batch.ids.shape[1]
    reads = torch.tensor([line * width + read for line, row in enumerate(rows) for read in row.reads], device=device)
    targets = torch.tensor([target for row in rows for target in row.targets], device=device)
    needed, where = reads.unique(return_inverse=True)
    return score_targets(model, hidden[needed], where, targets)
