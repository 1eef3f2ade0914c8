"""Checks that an adapter's file has every module that its configuration targets, as far as that can be known."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from types import SimpleNamespace
from typing import Any

from torch import nn

from hiplora.adapters.fields import Checker
from hiplora.adapters.skeleton import Skeleton
from hiplora.errors import UserError

_FIELDS = ("target_modules", "exclude_modules", "layers_to_transform", "layers_pattern")


def check_promised(
    source: str, config: Mapping[str, Any], adapted: Collection[str], linear: Collection[str]
) -> tuple[str, ...]:
    """Notes on targets without a module in the file; UserError if the file certainly lacks one.

    Only the backbone's modules make it certain. Without a backbone, or with one that names its modules differently, the
    model may not have the target: then the result holds a note.

    Args:
        linear: names of the backbone's linear layers; none without a backbone.

    Raises:
        UserError: the file lacks a module of the backbone that the configuration targets.
    """
    check = Checker(source, config)
    for field in _FIELDS:
        fits = _compiles if field == "layers_to_transform" else _names
        check.value(field, None, fits, "names of modules, or a regular expression")
    targets = config.get("target_modules")
    if not targets or targets == "all-linear":
        return ()
    if not adapted or not set(adapted) <= set(linear):
        listed = [] if isinstance(targets, str) else targets
        absent = [target for target in listed if not any(_ends(name, target) for name in adapted)]
        note = f"{source} holds nothing for its target {', '.join(sorted(absent))}; add --backbone DIR to check it."
        return (note,) if absent else ()
    missing = sorted(_targeted(config, linear) - set(adapted))
    if missing:
        raise UserError(_lacks(source, config, missing, {_layer(name) for name in adapted}))
    return ()


def _lacks(source: str, config: Mapping[str, Any], missing: list[str], layers: Collection[str | None]) -> str:
    """The message: another backbone if nothing is missing in the layers that are there, else an incomplete file."""
    lacks = f"{source} holds nothing for {missing[0]} ({len(missing)} such), which its target_modules name"
    if any(_layer(name) in layers for name in missing):
        return f"{lacks}; the file is incomplete, save or fetch it again."
    base = config.get("base_model_name_or_path")
    named = f", which is {base} by its configuration" if base else ""
    return (
        f"{lacks}, and its own {len(layers)} layers are complete; give the backbone that it was trained on{named} "
        "(without model= an evaluation takes it), or fetch the adapter again if its file is cut off."
    )


def _layer(name: str) -> str | None:
    """The number of a module's layer; None outside the layers."""
    return next((part for part in name.split(".") if part.isdigit()), None)


def linear_layers(model: Skeleton) -> dict[str, nn.Module]:
    """The linear layers of a backbone, by name."""
    from transformers.pytorch_utils import Conv1D

    return {name: module for name, module in model.modules.items() if isinstance(module, nn.Linear | Conv1D)}


def _targeted(config: Mapping[str, Any], names: Collection[str]) -> set[str]:
    """Those of ``names`` that PEFT would adapt with this configuration."""
    from hiplora.tuner.hooks import check_target_module_exists

    options: Any = SimpleNamespace(**{name: config.get(name) for name in _FIELDS})
    saved = config.get("modules_to_save") or ()
    return {n for n in names if check_target_module_exists(options, n) and not any(_inside(n, s) for s in saved)}


def _names(value: Any) -> bool:
    return _compiles(value) and not isinstance(value, int)


def _compiles(value: Any) -> bool:
    if not isinstance(value, str):
        return value is None or isinstance(value, list | int)
    try:
        re.compile(value)
    except re.error:
        return False
    return True


def _ends(name: str, target: str) -> bool:
    return name == target or name.endswith(f".{target}")


def _inside(name: str, module: str) -> bool:
    return f".{module}." in f".{name}."
