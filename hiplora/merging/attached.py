"""A merged update on a backbone for as long as it is evaluated, without a change to a single weight."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from hiplora.errors import UserError
from hiplora.updates import Dense, Update


@contextmanager
def attached(model: nn.Module, updates: Mapping[str, Update]) -> Iterator[None]:
    """Add ΔW x to the output of every named linear layer inside the ``with`` block.

    Nothing is folded: rounding W + ΔW to bf16 would lose most of a small update, and the backbone's weights would
    have to be restored. A factored update costs its rank, a full-rank one a second product.

    Args:
        updates: module name to ΔW of shape (out, in); walked once.

    Raises:
        UserError: a name that is no linear layer of the model, or another shape.
    """
    handles = []
    try:
        for name, update in updates.items():
            handles.append(_linear(model, name, update.shape).register_forward_hook(_hook(model, update)))
        yield
    finally:
        for handle in handles:
            handle.remove()


def _linear(model: nn.Module, name: str, shape: tuple[int, int]) -> nn.Linear:
    try:
        module = model.get_submodule(name)
    except AttributeError:
        raise UserError(
            f"The backbone has no module {name}; give the backbone these adapters were trained on."
        ) from None
    if not isinstance(module, nn.Linear) or tuple(module.weight.shape) != tuple(shape):
        raise UserError(f"{name} is no linear layer of shape {tuple(shape)}; give the adapters' own backbone.")
    return module


def _hook(model: nn.Module, update: Update):
    weight = next(model.parameters())
    factors = None if isinstance(update, Dense) else update.factors()
    if factors is not None and 2 * factors.rank < min(update.shape):
        B, A = (part.to(weight.device, weight.dtype) for part in (factors.B, factors.A))
        return lambda module, inputs, output: output + (inputs[0] @ A.mT) @ B.mT
    dense: Tensor = update.dense().to(weight.device, weight.dtype)
    return lambda module, inputs, output: torch.add(output, inputs[0] @ dense.mT)
