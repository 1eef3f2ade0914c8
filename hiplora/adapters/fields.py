"""Reads and checks adapter_config.json of PEFT's LoRA and AdaLoRA, with PEFT's defaults."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any

from hiplora.adapters.files import ADAPTER_CONFIG
from hiplora.errors import UserError

# Fields that do not change ΔW, or that the readers handle; any other field of PEFT's must be empty.
UNDERSTOOD = (
    *("base_model_name_or_path", "revision", "task_type", "peft_type", "peft_version", "auto_mapping"),
    *("inference_mode", "runtime_config", "ensure_weight_tying", "lora_dropout", "fan_in_fan_out", "bias"),
    *("r", "lora_alpha", "rank_pattern", "alpha_pattern", "use_rslora", "use_dora", "qalora_group_size"),
    *("target_modules", "exclude_modules", "layers_to_transform", "layers_pattern", "megatron_config", "megatron_core"),
    *("init_lora_weights", "loftq_config", "eva_config", "corda_config", "lora_ga_config"),
    *("modules_to_save", "trainable_token_indices"),
)
KINDS = {  # readable peft_types, each with its further fields of that sort
    "LORA": (),
    "ADALORA": (
        *("init_r", "target_r", "tinit", "tfinal", "deltaT", "beta1", "beta2", "orth_reg_weight", "total_step"),
    ),
}
# Other libraries' fields that change the update, and the naming pattern of such fields in PEFT, for future versions.
CHANGING = ("enable_lora", "lora_scaling", "scaling", "scale", "mora_type", "block_size", "shared_factors")
CHANGING_NAMES = re.compile(r"use_.+|.+_config")
# Initialisations that do not change the backbone; the others (pissa, olora, corda, loftq, …) move weight out
# of the backbone into the adapter, so that s·BA is not the update.
HARMLESS_INITS = (True, False, None, "gaussian", "eva", "orthogonal")
PISSA = "pissa"  # from the exact SVD, which can be reproduced; the randomised form cannot


@dataclass(frozen=True)
class LoraFields:
    """The fields that determine ΔW from the factors: ranks and scalings, by module, and the kind of adapter."""

    kind: str
    rank: int  # init_r for AdaLoRA
    alpha: float
    rank_pattern: Mapping[str, int]
    alpha_pattern: Mapping[str, float]
    rslora: bool
    dora: bool
    pissa: bool
    notes: tuple[str, ...]

    def rank_of(self, module: str) -> int:
        """The rank that PEFT assigns to a module."""
        return matched(self.rank_pattern, module, self.rank)

    def scaling(self, module: str, rank: int) -> float:
        """s = α / r, or α / √r with rsLoRA."""
        return matched(self.alpha_pattern, module, self.alpha) / (math.sqrt(rank) if self.rslora else rank)


def matched(pattern: Mapping[str, Any] | None, module: str, default: Any) -> Any:
    """The value of the first pattern that matches the end of the module's name, as in PEFT; else the default."""
    own = (value for key, value in (pattern or {}).items() if re.match(rf"(.*\.)?({key})$", module))
    return next(own, default)


def lora_fields(source: str, config: Mapping[str, Any]) -> LoraFields:
    """The fields of a configuration of one of the KINDS; a missing field has PEFT's default.

    Raises:
        UserError: a value that PEFT could not use, or one that makes ΔW more than a low-rank update.
    """
    check = Checker(source, config)
    kind = config["peft_type"]
    ada = kind == "ADALORA"
    unknown = _refuse_changing(source, config)
    check.value("bias", "none", lambda v: v in (None, "none"), "none: trained biases are more than a low-rank update")
    init = config.get("init_lora_weights", True)
    if init not in (*HARMLESS_INITS, PISSA):
        raise UserError(
            f"{source} was initialised with init_lora_weights={init}, which changes the backbone; save it "
            "again with path_initial_model_for_weight_conversion and use that."
        )
    return LoraFields(
        kind=kind,
        rank=check.value("init_r", 12, whole, WHOLE) if ada else check.value("r", 8, whole, WHOLE),
        alpha=check.value("lora_alpha", 8, number, NUMBER),
        rank_pattern={} if ada else check.pattern("rank_pattern", whole, WHOLE),  # AdaLoRA's is a mask of triplets
        alpha_pattern={} if ada else check.pattern("alpha_pattern", number, NUMBER),
        rslora=bool(check.value("use_rslora", False, flag, FLAG)),
        pissa=init == PISSA,
        dora=bool(check.value("use_dora", False, flag, FLAG)),
        notes=(f"{source} has fields that are not PEFT's and do not change the update: {', '.join(unknown)}.",)
        if unknown
        else (),
    )


def check_fields(source: str, config: Mapping[str, Any]) -> None:
    """Refuse a configuration of one of the KINDS for what its fields alone say. Raises UserError."""
    if config.get("peft_type") in KINDS:
        lora_fields(source, config)


def check_task(source: str, config: Mapping[str, Any]) -> None:
    """Refuse a task type that PEFT does not know: writing a merge would fail on it. Raises UserError."""
    from peft import TaskType

    known = [task.value for task in TaskType]
    wanted = f"null or one of {', '.join(known)}"
    Checker(source, config).value("task_type", None, lambda value: value in (None, "", *known), wanted)


def _refuse_changing(source: str, config: Mapping[str, Any]) -> list[str]:
    """Names of fields that PEFT does not know. Raises UserError for unsupported fields that can change the update."""
    from peft import AdaLoraConfig

    known = {field.name for field in fields(AdaLoraConfig)}
    odd = sorted(
        key for key, value in config.items() if value and key not in {*UNDERSTOOD, *KINDS[config["peft_type"]]}
    )
    changing = [key for key in odd if key in known or key in CHANGING or CHANGING_NAMES.fullmatch(key)]
    if changing:
        raise UserError(
            f"{source} uses {', '.join(f'{key}={config[key]}' for key in changing)}, which is more than a low-rank "
            "update of linear layers; such an adapter can be neither scored nor merged here."
        )
    return [key for key in odd if key not in changing]


WHOLE, NUMBER, FLAG = "a whole number of 1 or more", "a finite number", "true or false"


def whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def flag(value: Any) -> bool:
    return value is None or isinstance(value, bool)


@dataclass(frozen=True)
class Checker:
    """Reads fields of one configuration and refuses invalid values."""

    source: str
    config: Mapping[str, Any]

    def value(self, name: str, default: Any, fits: Callable[[Any], bool], wanted: str) -> Any:
        """A field's value, or the default if it is missing. Raises UserError if the value does not fit."""
        value = self.config.get(name, default)
        if not fits(value):
            raise self.wrong(name, value, wanted)
        return value

    def pattern(self, name: str, fits: Callable[[Any], bool], wanted: str) -> dict[str, Any]:
        """A field that maps regular expressions for the ends of module names to values. Raises UserError."""
        pattern = self.value(name, {}, lambda v: v is None or isinstance(v, dict), "a table of names and values")
        for key, value in (pattern or {}).items():
            try:
                re.compile(key)
            except re.error as error:
                raise self.wrong(f"{name}: {key}", value, f"a regular expression ({error})") from None
            if not fits(value):
                raise self.wrong(f"{name}: {key}", value, wanted)
        return pattern or {}

    def wrong(self, name: str, value: Any, wanted: str) -> UserError:
        """The error for a field with an invalid value."""
        return UserError(f"{self.source} has {name}={json.dumps(value)} in its {ADAPTER_CONFIG}; it must be {wanted}.")
