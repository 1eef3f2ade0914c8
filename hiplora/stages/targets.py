"""The matrices that an adapter adapts: modules given by name, or a word that the backbone's structure resolves.

``auto`` means every linear layer directly inside an attention module of the decoder, whether projections are separate
or fused; ``all-linear`` means every linear layer except the output head. transformers' Conv1D counts as a linear layer.
Routers and experts that a mixture stores as bare parameters do not, although PEFT's ``all-linear`` includes them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import TYPE_CHECKING

from hiplora.errors import UserError
from hiplora.models import ALL_LINEAR, AUTO

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel


def resolved(model: PreTrainedModel, targets: Sequence[str]) -> tuple[str, ...]:
    """Suffixes of module names, as PEFT matches them: the given ``targets``, or those of ``auto`` or ``all-linear``.

    Raises:
        UserError: with ``auto``, no attention module of the backbone contains a linear layer.
    """
    if tuple(targets) == (AUTO,):
        return _ends_of(_in_attention(model), model)
    if tuple(targets) == (ALL_LINEAR,):
        head = model.get_output_embeddings()
        return _ends_of([name for name, module in _linear(model) if module is not head], model)
    return tuple(targets)


def target_shapes(model: PreTrainedModel, targets: Sequence[str]) -> dict[str, tuple[int, int]]:
    """Module name → shape (out, in) of the linear layers whose names end in one of the ``targets``.

    Raises:
        UserError: a target matches no linear layer, a quantised one, or one whose weight is tied to another module.
    """
    from hiplora.spectral.stored import refuse_quantised_module
    from hiplora.tuner.targets import is_linear, matrix

    _check_tied(model, targets)
    chosen = {name: module for name, module in model.named_modules() if _is_one_of(name, targets)}
    for name, module in chosen.items():
        refuse_quantised_module(f"{name}, which model.target_modules names,", module)
    _check_linear(model, targets, chosen)
    shapes = {name: matrix(module).shape for name, module in chosen.items() if is_linear(module)}
    return {name: (shape[0], shape[1]) for name, shape in shapes.items()}


def _in_attention(model: PreTrainedModel) -> list[str]:
    """Names of the linear layers directly inside the decoder's attention modules, found by their class names."""
    decoder = {id(module) for module in model.get_decoder().modules()}
    attention = {
        name
        for name, module in model.named_modules()
        if id(module) in decoder and "attention" in type(module).__name__.lower()
    }
    found = [name for name, _ in _linear(model) if name.rpartition(".")[0] in attention]
    if not found:
        raise UserError(
            f"model.target_modules=auto finds no linear layer in an attention module of this {type(model).__name__}; "
            f"name the layers instead, among {', '.join(_known(model))}."
        )
    return found


def _linear(model: PreTrainedModel) -> Iterator[tuple[str, nn.Module]]:
    from hiplora.tuner.targets import is_linear

    return ((name, module) for name, module in model.named_modules() if is_linear(module))


def _known(model: PreTrainedModel) -> list[str]:
    return sorted({name.rpartition(".")[2] for name, _ in _linear(model)})


def _ends_of(names: Sequence[str], model: PreTrainedModel) -> tuple[str, ...]:
    """The shortest suffixes of these module names that match no other module of the model."""
    others = {name for name, _ in model.named_modules()} - {*names}
    clear: dict[str, bool] = {}
    found: set[str] = set()
    for name in names:
        parts = name.split(".")
        for start in range(len(parts) - 1, -1, -1):
            end = ".".join(parts[start:])
            if end not in clear:
                clear[end] = not any(_is_one_of(other, [end]) for other in others)
            if clear[end] or not start:
                found.add(end)
                break
    return tuple(sorted(found))


def _is_one_of(name: str, targets: Collection[str]) -> bool:
    return any(name == target or name.endswith(f".{target}") for target in targets)


def _check_linear(model: PreTrainedModel, targets: Sequence[str], chosen: dict[str, nn.Module]) -> None:
    """Refuse targets that match no linear layer: a weight matrix of another kind by name, the others together."""
    from hiplora.tuner.targets import is_linear

    absent = [each for each in targets if not any(is_linear(m) for n, m in chosen.items() if _is_one_of(n, [each]))]
    for target in absent:
        for name, parameter in model.named_parameters():
            owner = name.rpartition(".")[0]
            if parameter.dim() > 1 and (_is_one_of(name, [target]) or _is_one_of(owner, [target])):
                kind = type(model.get_submodule(owner)).__name__
                shape = " × ".join(map(str, parameter.shape))
                raise UserError(
                    f"model.target_modules names {target}, but {name} of this backbone is a parameter ({shape}) of "
                    f"{kind}, not a linear layer; choose among {', '.join(_known(model))}."
                )
    if absent:
        raise UserError(
            f"model.target_modules names {', '.join(absent)}, but no linear layer of this backbone has that name; "
            f"type model.target_modules={AUTO} for those of its attention, or choose among {', '.join(_known(model))}."
        )


def _check_tied(model: PreTrainedModel, targets: Sequence[str]) -> None:
    """Refuse a target whose weight is tied to another module's: an update attached to one would miss the other."""
    owners: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        owners.setdefault(id(parameter), []).append(name.rpartition(".")[0])
    for name, _ in model.named_modules():
        shared = next((names for names in owners.values() if name in names and len(names) > 1), [])
        if shared and _is_one_of(name, targets):
            others, last = ", ".join(other for other in shared if other != name), name.rpartition(".")[2]
            raise UserError(
                f"model.target_modules names {last}, whose weight this backbone shares with {others}; leave {last} out."
            )
