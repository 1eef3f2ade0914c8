"""The shared part of DARE and DELLA: seeded masks per adapter and matrix, and the rule that fuses the kept entries."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from hiplora.merging.base import Plan, Tasks, streams
from hiplora.merging.blocks import fuse_blocks
from hiplora.merging.elementwise import disjoint_mean, weighted
from hiplora.updates import Dense

Drop = Callable[[Tensor, torch.Generator], Tensor]


def plan_drop(
    tasks: Tasks,
    generator: torch.Generator,
    drop: Drop,
    *,
    rule: str,
    scale: float,
    weights: Sequence[float] | None,
) -> Plan:
    """A plan that applies ``drop`` to blocks of rows of every ΔW_t, then adds (linear) or elects and averages (ties).

    ``weights`` multiply the kept entries before they are fused.

    Every pair of an adapter's position and a matrix's name has its own random stream. So a matrix does not depend on
    how often and in which order matrices are computed, but adapters in another order get other masks.
    """
    stream = streams(generator)
    fuse: Callable[[Tensor], Tensor] = disjoint_mean if rule == "ties" else (lambda x: x.sum(dim=0))

    def matrix(name: str) -> Dense:
        masks = [stream(t, name) for t in range(len(tasks))]

        def dropped(blocks: Tensor) -> Tensor:
            left = torch.stack([drop(block, mask) for block, mask in zip(blocks, masks, strict=True)])
            return fuse(weighted(left, weights))

        return Dense(fuse_blocks([task[name] for task in tasks], dropped, in_order=True).mul_(scale))

    return Plan(matrix, factored=False)


def uniform(like: Tensor, generator: torch.Generator) -> Tensor:
    """Uniform numbers in [0, 1) of a tensor's shape; drawn on the CPU, so that they are the same on every device."""
    return torch.rand(like.shape, generator=generator).to(like.device)
