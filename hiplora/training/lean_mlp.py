"""The frozen MLP of a Llama block with less memory for the backward pass.

For ``down(silu(gate(x)) ⊙ up(x))`` autograd keeps three tensors of the intermediate size per token, the largest part
of a training step's memory. Two are enough, because silu(gate) is cheap to recompute. Outputs and gradients are bit
for bit the same: the same operations in the same order.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F
from transformers.models.llama.modeling_llama import LlamaMLP


class _FrozenMLP(torch.autograd.Function):
    """(silu(x Gᵀ) ⊙ x Uᵀ) Dᵀ for x (…, n), frozen G and U (m, n), D (n, m)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, G: Tensor, U: Tensor, D: Tensor) -> Tensor:
        gate, up = F.linear(x, G), F.linear(x, U)
        ctx.save_for_backward(gate, up, G, U, D)
        return F.linear(F.silu(gate).mul_(up), D)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        gate, up, G, U, D = ctx.saved_tensors
        inner = grad @ D
        grad_x = (inner * F.silu(gate)) @ U
        grad_gate = torch.ops.aten.silu_backward(inner.mul_(up), gate)
        return grad_x.add_(grad_gate @ G), None, None, None


@contextmanager
def lean_mlp(model: nn.Module) -> Iterator[None]:
    """A context in which the model's frozen Llama MLPs keep less; others (adapted, trained, biased …) do not change."""
    layers: list[Any] = [module for module in model.modules() if _is_frozen(module)]
    for layer in layers:
        layer.forward = MethodType(_forward, layer)
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward


def _is_frozen(module: nn.Module) -> bool:
    if type(module) is not LlamaMLP or module.config.hidden_act != "silu":
        return False
    linears = (module.gate_proj, module.up_proj, module.down_proj)
    return all(type(each) is nn.Linear and each.bias is None and not each.weight.requires_grad for each in linears)


def _forward(layer: Any, x: Tensor) -> Tensor:
    return _FrozenMLP.apply(x, layer.gate_proj.weight, layer.up_proj.weight, layer.down_proj.weight)
