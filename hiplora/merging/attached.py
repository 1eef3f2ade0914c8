"""Attaches a merged update to a backbone while it is evaluated, without changing a weight."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from hiplora.adapters.fitting import linear_shape
from hiplora.adapters.trained import Trained
from hiplora.errors import UserError
from hiplora.updates import Dense, Update


@contextmanager
def attached(model: nn.Module, updates: Mapping[str, Update], *, dtype: torch.dtype | None = None) -> Iterator[None]:
    """Add ΔW x to the output of every named linear layer inside the ``with`` block.

    Nothing is folded: rounding W + ΔW to bf16 would lose most of a small update, and the backbone's weights would
    have to be restored. A factored update costs two thin products per layer; a full-rank one, or one whose rank is at
    least half of min(out, in), costs one dense product.

    Args:
        updates: module name to ΔW of shape (out, in); iterated over once.
        dtype: of the update and its product with x; default: the model's. PEFT computes in float32.

    Raises:
        UserError: the model has no linear layer of this name and shape.
    """
    handles = []
    try:
        for name, update in updates.items():
            handles.append(_linear(model, name, update.shape).register_forward_hook(_hook(model, update, dtype)))
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def replaced(model: nn.Module, trained: Trained) -> Iterator[None]:
    """Replace the backbone's parameters by trained ones inside the ``with`` block.

    Parameters are exchanged, not overwritten, so that the model's own come back bit for bit, shared ones too.
    ``trained`` must fit the model: :func:`hiplora.adapters.fitting.check_fits`.
    """
    places: dict[int, list[tuple[nn.Module, str]]] = {}
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            places.setdefault(id(parameter), []).append((module, name))
    kept: list[tuple[nn.Module, str, nn.Parameter]] = []
    try:
        for key, values in _values(model, trained).items():
            path, _, name = key.rpartition(".")
            owner = model.get_submodule(path)
            own = owner.get_parameter(name)
            for module, attribute in places[id(own)] if trained.shared(key) else [(owner, name)]:
                kept.append((module, attribute, module.get_parameter(attribute)))
                setattr(module, attribute, nn.Parameter(values.to(own.device, own.dtype), requires_grad=False))
        yield
    finally:
        for module, attribute, parameter in reversed(kept):
            setattr(module, attribute, parameter)


def _values(model: nn.Module, trained: Trained) -> dict[str, Tensor]:
    """The new values of every parameter that was trained as a whole or in some rows."""
    found = dict(trained.tensors)
    for name, rows in trained.tokens.items():
        own = model.get_submodule(name).get_parameter("weight").detach()
        index = torch.tensor([*rows], device=own.device)
        found[f"{name}.weight"] = own.index_copy(0, index, torch.stack([*rows.values()]).to(own.device, own.dtype))
    return found


def _linear(model: nn.Module, name: str, shape: tuple[int, int]) -> nn.Module:
    try:
        module = model.get_submodule(name)
    except AttributeError:
        raise UserError(
            f"The backbone has no module {name}; give the backbone these adapters were trained on."
        ) from None
    if linear_shape(module) != tuple(shape):
        raise UserError(f"{name} is not a linear layer of shape {tuple(shape)}; give the adapters' own backbone.")
    return module


def _hook(model: nn.Module, update: Update, dtype: torch.dtype | None):
    weight = next(model.parameters())
    factors, wide = None if isinstance(update, Dense) else update.factors(), dtype or weight.dtype
    if factors is not None and 2 * factors.rank < min(update.shape):
        B, A = (part.to(weight.device, wide) for part in (factors.B, factors.A))
        return lambda module, inputs, output: (output + (inputs[0].to(wide) @ A.mT) @ B.mT).to(output.dtype)
    dense: Tensor = update.dense().to(weight.device, wide)
    return lambda module, inputs, output: (output + inputs[0].to(wide) @ dense.mT).to(output.dtype)
