"""The modules that an adapter targets, all checked before the model is changed."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from hiplora.errors import UserError
from hiplora.spectral.stored import refuse_quantised_module
from hiplora.tuner.config import HipConfig
from hiplora.tuner.hooks import BaseTunerLayer, check_target_module_exists


def find_targets(
    model: nn.Module, config: HipConfig, state_dict: Mapping[str, Tensor] | None = None
) -> dict[str, nn.Module]:
    """The modules that the configuration (or, as in PEFT, a given state dict) selects, by name.

    ``config.target_modules`` must be resolved already.

    Raises:
        UserError: a target does not exist, is not a plain linear layer, has no values (meta device) or is smaller
            than k.
    """
    visible = dict(_outside_adapters(model))
    if state_dict is None:
        _check_every_target_exists(visible, config)
        chosen = [name for name in visible if check_target_module_exists(config, name)]
    else:
        named = {key.rsplit(".lora_", 1)[0] for key in state_dict}
        chosen = [name for name in visible if name in named]
    for name in chosen:
        _check(model, name, config)
    return {name: visible[name] for name in chosen}


def base_of(module: nn.Module) -> nn.Module:
    """The backbone's module behind a module that may be adapted."""
    return module.get_base_layer() if isinstance(module, BaseTunerLayer) else module


def transposed(module: nn.Module) -> bool:
    """Whether a module's weight is (in, out). Only transformers' Conv1D is, whatever ``fan_in_fan_out`` says."""
    return isinstance(base_of(module), Conv1D)


def is_linear(module: nn.Module) -> bool:
    """Whether a module, adapted or not, is torch's linear layer or transformers' Conv1D."""
    return isinstance(base_of(module), nn.Linear | Conv1D)


def matrix(module: nn.Module) -> Tensor:
    """The weight (out, in) of a linear layer; a transposed view of a Conv1D's."""
    weight = cast(Tensor, module.weight)
    return weight.mT if transposed(module) else weight


def matrix_of(name: str, module: nn.Module) -> Tensor:
    """The backbone's weight (out, in) of a module that may be adapted. Raises UserError if it is quantised."""
    base = base_of(module)
    refuse_quantised_module(name, base)
    return matrix(base).detach()


def weights_of(targets: Mapping[str, nn.Module]) -> dict[str, Tensor]:
    """The backbone's weight (m, n) behind each target, detached."""
    return {name: matrix(base_of(module)).detach() for name, module in targets.items()}


def _outside_adapters(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """``named_modules`` without the root and without the submodules of adapted layers."""
    inside: set[str] = set()
    for name, module in model.named_modules():
        if not name:
            continue
        if name.rpartition(".")[0] in inside:
            inside.add(name)
            continue
        if isinstance(module, BaseTunerLayer):
            inside.add(name)
        yield name, module


def _check_every_target_exists(modules: Mapping[str, nn.Module], config: HipConfig) -> None:
    targets = config.target_modules
    if isinstance(targets, str):
        missing = [] if any(re.fullmatch(targets, name) for name in modules) else [targets]
    else:
        missing = [t for t in targets or () if not any(n == t or n.endswith(f".{t}") for n in modules)]
    if missing:
        linear = {n.rpartition(".")[2] for n, m in modules.items() if is_linear(m)}
        raise UserError(
            f"target_modules names {', '.join(sorted(missing))}, which the model does not have; its linear "
            f"modules are called {', '.join(sorted(linear))}."
        )


def _check(model: nn.Module, name: str, config: HipConfig) -> None:
    base = base_of(model.get_submodule(name))
    weight: Any = getattr(base, "weight", None)
    parent = model.get_submodule(name.rpartition(".")[0])
    refuse_quantised_module(f"the target {name}", base)
    plain = is_linear(base) and weight is not None and type(weight.data) is torch.Tensor
    if not plain or isinstance(parent, nn.MultiheadAttention):
        kind = "part of nn.MultiheadAttention" if isinstance(base, nn.Linear) else type(base).__name__
        raise UserError(
            f"the target {name} is {kind}, but HiP-LoRA adapts plain linear layers only; choose other target_modules."
        )
    if weight.device.type == "meta":
        raise UserError(
            f"the weight of the target {name} is not loaded (meta device), but its SVD needs values; load the backbone "
            "without offloading."
        )
    if config.k > min(weight.shape):
        raise UserError(
            f"k={config.k} is larger than the target {name} allows, whose weight is "
            f"{weight.shape[0]}×{weight.shape[1]}; choose k of at most {min(weight.shape)} or leave the target "
            "out of target_modules."
        )
