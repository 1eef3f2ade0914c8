"""Cross-entropy at label positions, the only ones to which the vocabulary matrix is applied."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from hiplora.packing.decoder import causal_lm, hidden_states

CHUNK_ELEMENTS = {
    "cpu": 2**22,
    "cuda": 2**27,
}  # logits held at a time: they fit in the CPU's cache, or in the GPU's memory


class _FrozenHeadCrossEntropy(torch.autograd.Function):
    """Sum over n positions of the cross-entropy of ``hidden @ weight.T`` (n, vocabulary), in fp32.

    The vocabulary matrix is frozen, so only ``hidden`` needs a gradient. The forward pass computes it chunk by chunk
    and keeps no logits.
    """

    @staticmethod
    def forward(ctx: Any, hidden: torch.Tensor, weight: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        loss = torch.zeros((), dtype=torch.float32, device=hidden.device)
        gradient = torch.empty_like(hidden)
        rows = max(1, CHUNK_ELEMENTS.get(hidden.device.type, 2**27) // weight.shape[0])
        for start in range(0, len(hidden), rows):
            part = slice(start, start + rows)
            logits = (hidden[part] @ weight.T).float()
            target = labels[part, None]
            probability = torch.softmax(logits, dim=-1)
            # log Σ exp from the largest logit and its probability, which is at least 1 / vocabulary
            normaliser = logits.amax(-1, keepdim=True) - probability.amax(-1, keepdim=True).log()
            loss += (normaliser - logits.gather(1, target)).sum()
            probability.scatter_add_(1, target, torch.full_like(normaliser, -1.0))
            gradient[part] = probability.to(hidden.dtype) @ weight
        ctx.save_for_backward(gradient)
        return loss

    @staticmethod
    def backward(ctx: Any, *upstream: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (gradient,) = ctx.saved_tensors
        return gradient * upstream[0].to(gradient.dtype), None, None


def cross_entropy_sum(hidden: torch.Tensor, head: nn.Module, labels: torch.Tensor) -> torch.Tensor:
    """Sum, in fp32 nats, of the cross-entropy of ``head(hidden)`` (n, vocabulary) against ``labels`` (n,)."""
    frozen = not any(parameter.requires_grad for parameter in head.parameters())
    if type(head) is nn.Linear and head.bias is None and frozen:
        return _FrozenHeadCrossEntropy.apply(hidden, head.weight, labels)
    return F.cross_entropy(head(hidden).float(), labels, reduction="sum")


def label_loss(model: nn.Module, batch: Mapping[str, torch.Tensor], *, compact: bool = False) -> torch.Tensor:
    """Sum, in fp32 nats, of the cross-entropy over the label tokens of a collated micro-batch.

    The caller divides by the label tokens of the whole optimizer step, so that the gradient does not depend on how the
    step is split. There is no attention mask and no cache: see packing/batches.py. ``compact`` computes only the
    positions ``places``, as one row. It needs the attention of packing/attention.py, which recovers from the position
    ids which tokens see each other.

    The hidden states are flattened to a contiguous (N, hidden) before the selection: for a 3-D slice, the CPU's linear
    would copy the vocabulary matrix once per row.
    """
    lm = causal_lm(model)
    ids, positions, index = batch["input_ids"], batch["position_ids"], batch["label_index"]
    if compact:
        places = batch["places"]
        order = places.new_empty(ids.numel())
        order[places] = torch.arange(len(places), device=places.device)
        index = order[index]
        ids, positions = (values.flatten()[places][None] for values in (ids, positions))
    hidden = hidden_states(model, ids, positions=positions)
    at_labels = hidden.reshape(-1, hidden.shape[-1]).index_select(0, index)
    return cross_entropy_sum(at_labels, lm.get_output_embeddings(), batch["label_ids"])
