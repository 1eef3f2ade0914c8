"""Checks that an adapter fits a backbone, by the names and shapes of the modules it changes."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from hiplora.adapters.reading import Adapter
from hiplora.errors import UserError
from hiplora.tuner.targets import transposed


def check_fits(adapter: Adapter, modules: Mapping[str, nn.Module], backbone: str) -> None:
    """Refuse an adapter that changes a module which the backbone lacks or has in another shape.

    Args:
        modules: the modules of the loaded backbone, or of its skeleton, by name.
        backbone: its name in messages.

    Raises:
        UserError: the adapter does not fit. The sentence names the module, both shapes, and the backbone in the
            adapter's configuration.
    """
    own = {name: linear_shape(module) or type(module).__name__ for name, module in modules.items()}
    check_shapes(adapter.label, adapter.base, {n: each.shape for n, each in adapter.updates.items()}, own, backbone)
    remedy = f"; {_remedy(adapter.base)}."
    for key, tensor in adapter.trained.tensors.items():
        _check_parameter(adapter, modules, key, tuple(tensor.shape), f"{backbone}{remedy}")
    for name, rows in adapter.trained.tokens.items():
        shape = (max(rows) + 1, *next(iter(rows.values())).shape)
        _check_parameter(adapter, modules, f"{name}.weight", shape, f"{backbone}{remedy}", least=True)


def check_shapes(
    label: str,
    base: str | None,
    updates: Mapping[str, tuple[int, ...]],
    own: Mapping[str, tuple[int, ...] | str],
    backbone: str,
) -> None:
    """Refuse updates of modules that the backbone lacks or has in another shape.

    Args:
        label: the adapter's name in messages.
        base: the backbone in its configuration.
        updates: the shape (out, in) of each update, by module.
        own: the shape of each of the backbone's matrices, and the class of any other module.

    Raises:
        UserError: as :func:`check_fits`.
    """
    for name, shape in updates.items():
        if name not in own:
            raise UserError(f"{label} adapts {name}, which the backbone {backbone} does not have; {_remedy(base)}.")
        held = own[name]
        if held != shape:
            kind = f"a {held}" if isinstance(held, str) else f"of shape {held}"
            raise UserError(
                f"{label} changes {name} by a matrix of shape {shape}, but that module of the backbone {backbone} is "
                f"{kind}; {_remedy(base)}."
            )


def _remedy(base: str | None) -> str:
    if not base:
        return "name the backbone that it was trained on, with model=folder model.path=DIR"
    return (
        f"its configuration says that it was trained on {base}: leave out model=, which takes that backbone, or type "
        "model=folder model.path=DIR"
    )


def linear_shape(module: nn.Module) -> tuple[int, ...] | None:
    """The shape (out, in) of a linear layer or Conv1D; None for any other module."""
    if transposed(module):
        return tuple(module.get_parameter("weight").shape)[::-1]
    return tuple(module.weight.shape) if isinstance(module, nn.Linear) else None


def _check_parameter(
    adapter: Adapter,
    modules: Mapping[str, nn.Module],
    key: str,
    shape: tuple[int, ...],
    backbone: str,
    *,
    least: bool = False,
) -> None:
    """Refuse values for a parameter that is missing or has another shape; ``least``: it may have more rows."""
    path, _, name = key.rpartition(".")
    held = dict(modules[path].named_parameters(recurse=False)).get(name) if path in modules else None
    own = None if held is None else tuple(held.shape)
    if own is None or not (own == shape or (least and own[1:] == shape[1:] and own[0] >= shape[0])):
        rows = " or more rows" if least else ""
        raise UserError(
            f"{adapter.label} holds {key} of {shape}{rows}, which is {own or 'absent'} in the backbone {backbone}"
        )
