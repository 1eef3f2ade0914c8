"""PEFT's own LoRA, DoRA and AdaLoRA folders as exact updates.

Whatever changes ΔW in a way that is not handled here is refused: a merge must not guess.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hiplora.adapters.files import ADAPTER_CONFIG, ADAPTER_PICKLE, ADAPTER_WEIGHTS
from hiplora.adapters.weights import Weights
from hiplora.errors import UserError
from hiplora.updates import Deferred, LowRank, Update, dora

KEY = re.compile(r"^(?:base_model\.model\.)?(?P<module>.+)\.lora_(?P<part>A|B|E|magnitude_vector)(?:\.weight)?$")
COPY = re.compile(r"^(?:base_model\.model\.)?(?P<module>.+)\.base_layer\.weight$")
# Fields that either leave ΔW alone or are handled below; any other one must be empty.
UNDERSTOOD = (
    *("base_model_name_or_path", "revision", "task_type", "peft_type", "peft_version", "auto_mapping"),
    *("inference_mode", "runtime_config", "ensure_weight_tying", "lora_dropout", "fan_in_fan_out", "bias"),
    *("r", "lora_alpha", "rank_pattern", "alpha_pattern", "use_rslora", "use_dora", "qalora_group_size"),
    *("target_modules", "exclude_modules", "layers_to_transform", "layers_pattern", "megatron_config", "megatron_core"),
    *("init_lora_weights", "loftq_config", "eva_config", "corda_config", "lora_ga_config"),
)
KINDS = {  # fields of PEFT's other LoRA-like types that leave ΔW alone or are handled below
    "LORA": (),
    "ADALORA": (
        *("init_r", "target_r", "tinit", "tfinal", "deltaT", "beta1", "beta2", "orth_reg_weight", "total_step"),
    ),
}
# Initialisations that leave the backbone as it is; the others (pissa, olora, corda, loftq, …) move weight out
# of the backbone into the adapter, so that s·BA is not the update.
HARMLESS_INITS = (True, False, None, "gaussian", "eva", "orthogonal")


def read_lora(source: str, folder: Path, config: Mapping[str, Any], *, weights: Weights | None) -> dict[str, Update]:
    """The updates of a folder whose configuration is of one of the KINDS, by module, in float32.

    Args:
        source: what to call the adapter in messages.
        weights: the backbone's; needed by DoRA, and where the folder holds weights of the backbone itself.

    Raises:
        UserError: a folder that is torn, or one whose update is not understood.
    """
    _refuse_unknown(source, config)
    modules = _modules(source, _without_copies(source, _tensors(folder), weights))
    if config.get("use_dora") and weights is None:
        raise UserError(f"{source} is a DoRA adapter, whose update depends on the backbone; add --backbone DIR.")
    return {name: _update(source, name, part, config, weights) for name, part in modules.items()}


def _refuse_unknown(source: str, config: Mapping[str, Any]) -> None:
    understood = {*UNDERSTOOD, *KINDS[config["peft_type"]]}
    odd = sorted(key for key, value in config.items() if key not in understood and value)
    if config.get("bias", "none") != "none":
        odd.append("bias")
    if odd:
        raise UserError(
            f"{source} uses {', '.join(f'{key}={config[key]}' for key in odd)}, which is more than a low-rank update "
            "of linear layers; such an adapter cannot be merged."
        )
    if config.get("init_lora_weights", True) not in HARMLESS_INITS:
        raise UserError(
            f"{source} was initialised with init_lora_weights={config['init_lora_weights']}, which changes the "
            "backbone; save it again with path_initial_model_for_weight_conversion and merge that."
        )


def _tensors(folder: Path) -> dict[str, Tensor]:
    from safetensors.torch import load_file

    for name in (ADAPTER_WEIGHTS, ADAPTER_PICKLE):
        path = folder / name
        if path.is_file():
            try:
                if path.suffix == ".safetensors":
                    return load_file(path)
                return torch.load(path, weights_only=True, map_location="cpu")
            except Exception as error:  # each format has exceptions of its own for a file that is not what it says
                raise UserError(f"{path} cannot be read ({_why(path, error)}); fetch or save it again.") from error
    raise UserError(
        f"{folder} holds neither {ADAPTER_WEIGHTS} nor {ADAPTER_PICKLE}; give the folder save_pretrained wrote."
    )


def _without_copies(source: str, tensors: Mapping[str, Tensor], weights: Weights | None) -> dict[str, Tensor]:
    """The tensors without the backbone's own weights, which PEFT saves along where lm_head or embeddings are adapted.

    Raises:
        UserError: such a weight and no backbone to compare it with, or one that is not the backbone's.
    """
    copies = {key: match["module"] for key in tensors if (match := COPY.match(key))}
    for key, module in copies.items():
        if weights is None:
            raise UserError(
                f"{source} holds {key}, the backbone's own weight or a trained one; add --backbone DIR to compare."
            )
        if not torch.equal(tensors[key].float(), weights[module].float()):
            raise UserError(f"{source} holds {key}, which is not the backbone's; such an adapter cannot be merged.")
    return {key: tensor for key, tensor in tensors.items() if key not in copies}


def _why(path: Path, error: Exception) -> str:
    if path.read_bytes()[:40].startswith(b"version https://git-lfs"):
        return "it is a pointer of Git LFS, not the file; type git lfs pull in its folder"
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]


def beyond_lora(source: str, key: str, tensor: Tensor) -> UserError:
    """The refusal of a tensor that is no part of a low-rank update."""
    return UserError(
        f"{source} holds {key} of shape {tuple(tensor.shape)}, which is not a LoRA factor of a linear layer; "
        "such an adapter cannot be merged."
    )


def _modules(source: str, tensors: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """Tensors by module and part; every tensor must be a 2-D LoRA factor or a DoRA magnitude."""
    modules: dict[str, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        match = KEY.match(key)
        if not match or tensor.ndim > 2:
            raise beyond_lora(source, key, tensor)
        modules.setdefault(match["module"], {})[match["part"]] = tensor.float()
    for name, part in modules.items():
        if not {"A", "B"} <= set(part):
            raise UserError(f"{source} holds only one of lora_A and lora_B for {name}; the file is incomplete.")
        if part["A"].shape[:1] != part["B"].shape[1:]:
            shapes = f"{tuple(part['A'].shape)} and {tuple(part['B'].shape)}"
            raise UserError(
                f"{source} holds lora_A and lora_B of {shapes} for {name}, which do not fit; save it again."
            )
    return modules


def _update(
    source: str, name: str, part: Mapping[str, Tensor], config: Mapping[str, Any], weights: Weights | None
) -> Update:
    if config["peft_type"] == "ADALORA":
        return _adalora(source, name, part, config)
    product = LowRank(
        part["B"]
        * scaling(
            name,
            part["A"].shape[0],
            alpha=config["lora_alpha"],
            patterns=config.get("alpha_pattern"),
            rslora=bool(config.get("use_rslora")),
        ),
        part["A"],
    )
    if "magnitude_vector" not in part:
        return product
    if weights is None:
        raise UserError(
            f"{source} holds DoRA magnitudes but its {ADAPTER_CONFIG} does not say use_dora; save it again."
        )
    shape, magnitude = product.shape, part["magnitude_vector"]
    weights.transposed(name, shape)  # refuses another backbone before anything is computed
    return Deferred(lambda: dora(weights.matrix(name, shape).float(), product, magnitude), shape)


def _adalora(source: str, name: str, part: Mapping[str, Tensor], config: Mapping[str, Any]) -> LowRank:
    """α / init_r · P diag(Λ) Q; PEFT keeps the scaling of the initial rank after pruning."""
    if "E" not in part:
        raise UserError(f"{source} holds no lora_E for {name}; the file is incomplete.")
    A, B, scaling = part["A"], part["B"], config["lora_alpha"] / (config["init_r"] + 1e-5)
    if not A.numel():  # every triplet of this matrix was pruned
        return LowRank(B.new_zeros(B.shape[0], 1), A.new_zeros(1, A.shape[1]))
    return LowRank(B * (part["E"].flatten() * scaling), A)


def scaling(name: str, rank: int, *, alpha: float, patterns: Mapping[str, float] | None, rslora: bool) -> float:
    """s = α / r, or α / √r; α from the first pattern that ends the module's name, as PEFT matches it."""
    own = (value for key, value in (patterns or {}).items() if re.match(rf"(.*\.)?({key})$", name))
    return next(own, alpha) / (math.sqrt(rank) if rslora else rank)
