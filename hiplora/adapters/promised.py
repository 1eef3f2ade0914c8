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
    source: str, config: Mapping[str, Any], adapted: Collection[str], model: Skeleton | None
) -> tuple[str, ...]:
    """Notes on targets without a module in the file; UserError if the file certainly lacks one.

    Only the backbone's modules make it certain. Without a backbone, or with one that names its modules differently, the
    model may not have the target: then the result holds a note.

    Raises:
        UserError: the file lacks a module of the backbone that the configuration targets.
    """
    check = Checker(source, config)
    for field in _FIELDS:
        check.value(field, None, _compiles, "names of modules, or a regular expression")
    targets = config.get("target_modules")
    if not targets or targets == "all-linear":
        return ()
    linear = _linear(model) if model else {}
    if not adapted or not set(adapted) <= set(linear):
        listed = [] if isinstance(targets, str) else targets
        absent = [target for target in listed if not any(_ends(name, target) for name in adapted)]
        note = f"{source} holds nothing for its target {', '.join(sorted(absent))}; add --backbone DIR to check it."
        return (note,) if absent else ()
    missing = sorted(_targeted(config, linear) - set(adapted))
    if missing:
        raise UserError(
            f"{source} holds nothing for {missing[0]} ({len(missing)} such), which its target_modules name; the file "
            "is incomplete, save or fetch it again."
        )
    return ()


def _linear(model: Skeleton) -> dict[str, nn.Module]:
    from transformers.pytorch_utils import Conv1D

    return {name: module for name, module in model.modules.items() if isinstance(module, nn.Linear | Conv1D)}


def _targeted(config: Mapping[str, Any], names: Collection[str]) -> set[str]:
    """Those of ``names`` that PEFT would adapt with this configuration."""
    from hiplora.tuner.hooks import check_target_module_exists

    options: Any = SimpleNamespace(**{name: config.get(name) for name in _FIELDS})
    saved = config.get("modules_to_save") or ()
    return {n for n in names if check_target_module_exists(options, n) and not any(_inside(n, s) for s in saved)}


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
