"""Every PEFT hook that the tuner relies on, and a check that refuses a PEFT in which one has changed.

The hooks are not public: a release may rename one or call it with other arguments, and φ would be lost without an
error. So this module checks the hooks themselves when it is imported, not the version number.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import peft

from hiplora.errors import UserError

# The range in pyproject.toml, and its ends; scripts/check_versions.py runs the tests at both.
REQUIREMENT = "peft>=0.21.0,<0.22"
TESTED = ("0.21.0", "0.21.2")


def refusal(what: str) -> UserError:
    """The error for a missing or changed hook: the installed version, the tested range, what to type."""
    return UserError(
        f"PEFT {peft.__version__} is installed, where {what}; HiP-LoRA was tested with PEFT {TESTED[0]} to "
        f"{TESTED[1]}: pip install '{REQUIREMENT}'."
    )


try:
    from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING, PEFT_TYPE_TO_PREFIX_MAPPING, PEFT_TYPE_TO_TUNER_MAPPING
    from peft.tuners.lora import Linear as LoraLinear
    from peft.tuners.lora import LoraModel
    from peft.tuners.lora.layer import VARIANT_KWARG_KEYS, LoraLayer, LoraVariant
    from peft.tuners.tuners_utils import BaseTunerLayer, _maybe_include_all_linear_layers, check_target_module_exists
    from peft.utils import _freeze_adapter
    from peft.utils.constants import DUMMY_TARGET_MODULES
except ImportError as error:
    raise refusal(f"an internal that HiP-LoRA needs is missing ({error})") from None

__all__ = [
    "DUMMY_TARGET_MODULES",
    "PEFT_TYPE_TO_CONFIG_MAPPING",
    "PEFT_TYPE_TO_PREFIX_MAPPING",
    "PEFT_TYPE_TO_TUNER_MAPPING",
    "VARIANT_KWARG_KEYS",
    "BaseTunerLayer",
    "LoraLayer",
    "LoraLinear",
    "LoraModel",
    "LoraVariant",
    "_freeze_adapter",
    "_maybe_include_all_linear_layers",
    "check",
    "check_target_module_exists",
]

# Argument names of the methods that PEFT calls and the tuner overrides, or that the tuner calls, without *args and
# **kwargs.
ARGUMENTS: Mapping[type, Mapping[str, str]] = {
    LoraModel: {
        "__init__": "self model peft_config adapter_name low_cpu_mem_usage state_dict",
        "inject_adapter": "self model adapter_name autocast_adapter_dtype low_cpu_mem_usage state_dict",
        "get_model_config": "model",
        "_prepare_adapter_config": "self peft_config model_config",
        "_create_new_module": "lora_config adapter_name target",
        "_cast_adapter_dtype": "self adapter_name autocast_adapter_dtype",
        "_get_adapter_state_dict": "model config adapter_name state_dict unwanted_adapter_names",
        "_remap_adapter_state_dict_for_load": "model config adapter_name state_dict",
        "_convert_state_dict_for_initial_model": (
            "peft_model peft_config path_initial_model_for_weight_conversion output_state_dict kwargs"
        ),
        "subtract_mutated_init": "self output_state_dict adapter_name kwargs",
        "_check_add_weighted_adapter": "self adapters combination_type svd_rank",
    },
    LoraLinear: {
        "update_layer": "self adapter_name r lora_alpha config",
        "resolve_lora_variant": "self config",
        "_move_adapter_to_device_of_base_layer": "self adapter_name device",
        "get_delta_weight": "self adapter",
        "forward": "self x",
        "merge": "self safe_merge adapter_names",
        "unmerge": "self",
    },
    LoraVariant: {
        "init": "module adapter_name",
        "forward": "module active_adapter x result",
        "merge_safe": "module active_adapter orig_weight",
        "merge_unsafe": "module active_adapter orig_weight",
    },
    peft.LoraConfig: {"_register_custom_module": "self mapping"},
}
ATTRIBUTES: Mapping[type, tuple[str, ...]] = {
    LoraLinear: ("adapter_layer_names", "other_param_names", "lora_variants"),
    LoraModel: ("prefix",),
}


def check() -> None:
    """Check that PEFT has every hook that the tuner needs.

    Raises:
        UserError: a hook is missing or takes other arguments.
    """
    for owner, methods in ARGUMENTS.items():
        for name, expected in methods.items():
            if (found := _arguments(owner, name)) != expected.split():
                what = "is missing" if found is None else f"takes ({', '.join(found)})"
                raise refusal(f"{_full(owner)}.{name} {what}")
    for owner, names in ATTRIBUTES.items():
        if absent := [name for name in names if not hasattr(owner, name)]:
            raise refusal(f"{_full(owner)}.{absent[0]} is missing")


def _full(owner: type) -> str:
    return f"{owner.__module__}.{owner.__qualname__}"


def _arguments(owner: type, name: str) -> list[str] | None:
    method: Any = getattr(owner, name, None)
    if method is None:
        return None
    variable = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return [each.name for each in inspect.signature(method).parameters.values() if each.kind not in variable]


check()
