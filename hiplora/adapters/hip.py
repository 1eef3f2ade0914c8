"""A HiP-LoRA folder as updates: Principal, or LowRank for Proj-LoRA."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeAlias, cast

import peft
import torch
from torch import Tensor, nn

from hiplora.adapters.fields import NUMBER, WHOLE, Checker, matched, number, whole
from hiplora.adapters.files import ADAPTER_CONFIG, read_config
from hiplora.adapters.tensors import read_tensors
from hiplora.adapters.weights import Weights
from hiplora.errors import UserError
from hiplora.spectral.cache import load_or_compute
from hiplora.tuner.basis import SingularBasis
from hiplora.tuner.config import HipConfig
from hiplora.tuner.identity import check_saved, phi_name
from hiplora.tuner.registration import HipLoraConfig
from hiplora.tuner.targets import matrix_of
from hiplora.updates import LowRank, Principal

ROUNDINGS = (torch.bfloat16, torch.float16)  # in which a model may have been loaded for training
Backbone: TypeAlias = str | Path | nn.Module | Weights | None


def read_hiplora(
    source: Path, *, backbone: Backbone = None, tensors: Mapping[str, Tensor] | None = None
) -> tuple[HipConfig, dict[str, LowRank | Principal], dict[str, Tensor]]:
    """The configuration, the updates by module name and the other saved tensors of a HiP-LoRA adapter folder.

    Args:
        backbone: a loaded model, a folder, or a checkpoint whose weights are read one at a time; None for the adapter's
            ``base_model_name_or_path``. It is used only if the adapter has no U and V (``save_basis``); these then come
            from the SVD cache or are computed.
        tensors: the folder's tensors, if they have been read already.

    Raises:
        UserError: the folder holds no complete HiP-LoRA adapter, or the backbone is not the adapter's.
    """
    config = _read_config(source)
    held = read_tensors(str(source), source) if tensors is None else tensors
    names = list(dict.fromkeys(key.rpartition(".lora_")[0] for key in held if ".lora_" in key))
    for name in names:
        _check_complete(source, name, held, config)
    updates = _updates(names, held, config, backbone)
    rest = {key: value for key, value in held.items() if ".lora_" not in key}
    return config, updates, rest


def _read_config(folder: Path) -> HipConfig:
    raw = read_config(folder)
    method = raw.get("peft_type")
    if method != "HIPLORA":
        raise UserError(f"{folder} holds a {method} adapter; only HIPLORA adapters need to be exported.")
    check = Checker(str(folder), raw)
    check.pattern("rank_pattern", whole, WHOLE)
    check.pattern("alpha_pattern", number, NUMBER)
    known = {each.name for each in fields(HipLoraConfig) if each.init} - {"peft_type", "runtime_config"}
    try:
        config = HipLoraConfig(**{name: value for name, value in raw.items() if name in known})
    except UserError as error:
        raise UserError(f"{folder}/{ADAPTER_CONFIG}: {error}") from None
    except (ValueError, TypeError) as error:  # PEFT's own checks
        raise UserError(
            f"{folder}/{ADAPTER_CONFIG} has a value that PEFT refuses ({str(error).strip().rstrip('.')}); correct it."
        ) from None
    config._source = (str(folder), {})
    return config


def _check_complete(folder: Path, name: str, tensors: Mapping[str, Tensor], config: HipConfig) -> None:
    """Refuse a module that lacks a tensor, has one of another kind of adapter, or has tensors that do not fit."""
    basis = ("lora_U", "lora_V") if config.save_basis else ()
    gains = (phi_name(config),) if config.principal else ()
    parts = ("lora_A.weight", "lora_B.weight", *gains, "lora_sigma", "lora_sketch", *basis)
    held = {key.removeprefix(f"{name}."): each for key, each in tensors.items() if key.startswith(f"{name}.lora_")}
    for part in parts:
        if part not in held:
            raise UserError(f"{folder} holds no {part} for {name}; the file is incomplete, save or fetch it again.")
    for part in sorted(set(held) - set(parts)):
        raise UserError(f"{folder} holds {part} for {name}, which its {ADAPTER_CONFIG} does not allow; save it again.")
    (rank, n), (m, columns), k = held["lora_A.weight"].shape, held["lora_B.weight"].shape, config.k
    sizes = {"lora_sigma": (k,), phi_name(config): (k,), "lora_sketch": (2, k), "lora_U": (m, k), "lora_V": (n, k)}
    odd = [
        f"{part} {tuple(held[part].shape)}" for part, size in sizes.items() if part in held and held[part].shape != size
    ]
    wanted = matched(config.rank_pattern, name, config.r)
    if odd or rank != columns or rank != wanted:
        what = odd or [f"lora_A {(rank, n)} and lora_B {(m, columns)}"]
        raise UserError(
            f"{folder} holds {', '.join(what)} for {name}, which do not fit each other or k={k} and r={wanted} in its "
            f"{ADAPTER_CONFIG}; save it again."
        )


def _updates(
    names: list[str],
    tensors: Mapping[str, Tensor],
    config: HipConfig,
    backbone: Backbone,
) -> dict[str, LowRank | Principal]:
    """The update (m, n) of every matrix, with the scaling folded into B; fp32."""
    bases: Mapping[str, tuple[Tensor, Tensor]] = {}
    if config.principal:
        bases = _carried(names, tensors) if config.save_basis else _recomputed(names, tensors, config, backbone)
    updates: dict[str, LowRank | Principal] = {}
    for name in names:
        A, B = (tensors[f"{name}.lora_{side}.weight"].float() for side in "AB")
        residual = LowRank(B * _scaling(name, A.shape[0], config), A)
        if not config.principal:
            updates[name] = residual
            continue
        phi = tensors[f"{name}.{phi_name(config)}"].float()
        if config.parameterization == "relative":
            phi = phi * tensors[f"{name}.lora_sigma"]
        U, V = bases[name]
        updates[name] = Principal(U, phi, V, residual)
    return updates


def _carried(names: list[str], tensors: Mapping[str, Tensor]) -> dict[str, tuple[Tensor, Tensor]]:
    return {name: (tensors[f"{name}.lora_U"], tensors[f"{name}.lora_V"]) for name in names}


def _recomputed(
    names: list[str],
    tensors: Mapping[str, Tensor],
    config: HipConfig,
    backbone: Backbone,
) -> dict[str, tuple[Tensor, Tensor]]:
    """U (m, k) and V (n, k) of the backbone's weights, checked against the adapter's σ and sketches.

    A backbone that is stored with more digits than it was trained in is rounded until its directions are the adapter's.
    """
    shapes = {
        name: (tensors[f"{name}.lora_B.weight"].shape[0], tensors[f"{name}.lora_A.weight"].shape[1]) for name in names
    }
    weights = _weights(shapes, config, backbone)
    refused: list[UserError] = []
    for rounding in (None, *ROUNDINGS):
        rounded = weights if rounding is None else _Rounded(weights, rounding)
        found = load_or_compute(rounded, **config.svd_options, cache_dir=config.cache_dir)
        bases = {
            name: SingularBasis(basis, options=config.svd_options, key=found.key, device=torch.device("cpu"))
            for name, basis in found.bases.items()
        }
        try:
            check_saved(bases, tensors, config)
        except UserError as error:
            refused.append(error)
            if all(weights[name].dtype in ROUNDINGS for name in names):
                break
        else:
            k = config.k
            return {name: (basis.U[:, :k].cpu(), basis.V[:, :k].cpu()) for name, basis in bases.items()}
    raise refused[0]


class _Rounded(Mapping[str, Tensor]):
    """Weights as a model has them that was loaded in a narrower dtype."""

    def __init__(self, weights: Mapping[str, Tensor], dtype: torch.dtype) -> None:
        self._weights, self._dtype = weights, dtype

    def __getitem__(self, name: str) -> Tensor:
        return self._weights[name].to(self._dtype)

    def __iter__(self) -> Iterator[str]:
        return iter(self._weights)

    def __len__(self) -> int:
        return len(self._weights)


def _weights(modules: Mapping[str, tuple[int, int]], config: HipConfig, backbone: Backbone) -> Mapping[str, Tensor]:
    """The weights of the adapted modules, given with their shapes; a checkpoint's are read one at a time, on access."""
    if isinstance(backbone, Weights):
        return _Matrices(backbone, modules)
    model = backbone if isinstance(backbone, nn.Module) else _load_backbone(config, backbone)
    layers = dict(model.named_modules())
    missing = [name for name in modules if name not in layers]
    if missing:
        raise UserError(f"the backbone has no module {missing[0]}; name the one trained on.")
    return {name: matrix_of(name, layers[name]) for name in modules}


class _Matrices(Mapping[str, Tensor]):
    """Some weights of a checkpoint as (out, in), read on access."""

    def __init__(self, weights: Weights, shapes: Mapping[str, tuple[int, int]]) -> None:
        self._weights, self._shapes = weights, shapes

    def __getitem__(self, name: str) -> Tensor:
        shape = self._shapes[name]
        if shape[0] == shape[1] and self._weights.skeleton is None:
            return self._weights[name]  # if it is stored transposed after all, check_saved refuses its directions
        return self._weights.matrix(name, shape)

    def __iter__(self) -> Iterator[str]:
        return iter(self._shapes)

    def __len__(self) -> int:
        return len(self._shapes)


def _load_backbone(config: HipConfig, backbone: str | Path | None) -> nn.Module:
    import transformers

    path = backbone if backbone is not None else config.base_model_name_or_path
    if path is None or (backbone is not None and not Path(path).is_dir()):
        what = f"there is no folder {path}" if path else "the adapter names no backbone"
        raise UserError(f"{what}; pass the folder of the model it was trained on as backbone (--backbone).")
    mapping: dict[str, Any] = config.auto_mapping or {}
    name = mapping.get("base_model_class")
    if config.task_type is not None:
        auto: Any = getattr(peft, f"AutoPeftModelFor{_AUTO[config.task_type]}")._target_class
    else:
        auto = getattr(transformers, name) if name and hasattr(transformers, name) else transformers.AutoModel
    try:
        return auto.from_pretrained(path, revision=config.revision, dtype="auto")
    except OSError as error:
        raise UserError(
            f"the backbone {path} cannot be loaded ({str(error).splitlines()[0]}); pass the folder of the "
            "model it was trained on as backbone (--backbone)."
        ) from error


_AUTO = {
    "CAUSAL_LM": "CausalLM",
    "SEQ_2_SEQ_LM": "Seq2SeqLM",
    "SEQ_CLS": "SequenceClassification",
    "TOKEN_CLS": "TokenClassification",
    "QUESTION_ANS": "QuestionAnswering",
    "FEATURE_EXTRACTION": "FeatureExtraction",
}


def _scaling(name: str, rank: int, config: HipConfig) -> float:
    alpha = matched(config.alpha_pattern, name, cast(float, config.lora_alpha))  # the configuration has replaced None
    return alpha / (math.sqrt(rank) if config.use_rslora else rank)
