"""A HiP-LoRA folder as updates: Principal, or LowRank for Proj-LoRA."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias, cast

import peft
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from hiplora.adapters.files import read_config
from hiplora.adapters.lora import scaling
from hiplora.errors import UserError
from hiplora.spectral.cache import load_or_compute
from hiplora.tuner.basis import SingularBasis
from hiplora.tuner.config import HipConfig
from hiplora.tuner.identity import IDENTITY, PREFIX, check_saved, phi_name, saved_tensors
from hiplora.tuner.registration import HipLoraConfig
from hiplora.tuner.targets import matrix_of
from hiplora.updates import LowRank, Principal

Backbone: TypeAlias = "str | Path | nn.Module | Mapping[str, Tensor] | None"


def read_hiplora(
    source: Path, *, backbone: Backbone = None
) -> tuple[HipConfig, dict[str, LowRank | Principal], dict[str, Tensor]]:
    """Configuration, update by module name, and whatever else was saved with them, of a HiP-LoRA adapter folder.

    U and V come from the adapter (``save_basis``), else from the SVD cache, else they are computed; for these two,
    ``backbone`` is a loaded model, a folder, the weights by module name, which then need not fit into memory together,
    or, if None, the adapter's ``base_model_name_or_path``. UserError where the folder holds no HiP-LoRA adapter or the
    backbone is another.
    """
    config = _read_config(source)
    try:
        tensors = saved_tensors(config)
    except SafetensorError as error:
        raise UserError(f"the weights in {source} are torn ({error}); save the adapter again.") from error
    if tensors is None:
        raise UserError(f"{source} holds no adapter weights; name a folder written by save_pretrained.")
    names = [key.removesuffix(".lora_A.weight") for key in tensors if key.endswith(".lora_A.weight")]
    updates = _updates(names, tensors, config, backbone)
    ours = {f"{name}.{part}" for name in names for part in _parts(config)}
    rest = {key: value for key, value in tensors.items() if key not in ours}
    return config, {name.removeprefix(PREFIX): update for name, update in updates.items()}, rest


def _read_config(folder: Path) -> HipConfig:
    method = read_config(folder).get("peft_type")
    if method != "HIPLORA":
        raise UserError(f"{folder} holds a {method} adapter; only HIPLORA adapters need to be exported.")
    return HipLoraConfig.from_pretrained(str(folder))


def _parts(config: HipConfig) -> tuple[str, ...]:
    return ("lora_A.weight", "lora_B.weight", phi_name(config), *IDENTITY)


def _updates(
    names: list[str],
    tensors: Mapping[str, Tensor],
    config: HipConfig,
    backbone: Backbone,
) -> dict[str, LowRank | Principal]:
    """The update of every matrix, scaling folded into B; fp32."""
    bases: Mapping[str, tuple[Tensor, Tensor]] = {}
    if config.principal:
        carried = all(f"{name}.lora_U" in tensors for name in names)
        bases = _carried(names, tensors) if carried else _recomputed(names, tensors, config, backbone)
    updates: dict[str, LowRank | Principal] = {}
    for name in names:
        A, B = (tensors[f"{name}.lora_{side}.weight"].float() for side in "AB")
        residual = LowRank(B * _scaling(name.removeprefix(PREFIX), A.shape[0], config), A)
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
    """U (m, k) and V (n, k) of the backbone's weights, checked against what the adapter says of its own."""
    weights = _weights([name.removeprefix(PREFIX) for name in names], config, backbone)
    found = load_or_compute(weights, **config.svd_options, cache_dir=config.cache_dir)
    bases = {
        name: SingularBasis(basis, options=config.svd_options, key=found.key, device=torch.device("cpu"))
        for name, basis in found.bases.items()
    }
    check_saved(bases, tensors, config)
    k = config.k
    return {PREFIX + name: (basis.U[:, :k].cpu(), basis.V[:, :k].cpu()) for name, basis in bases.items()}


def _weights(modules: list[str], config: HipConfig, backbone: Backbone) -> Mapping[str, Tensor]:
    """The weights of the adapted modules, of a mapping given as such one at a time, when asked for."""
    if isinstance(backbone, Mapping):
        return _Some(backbone, modules)
    model = backbone if isinstance(backbone, nn.Module) else _load_backbone(config, backbone)
    layers = dict(model.named_modules())
    missing = [name for name in modules if name not in layers]
    if missing:
        raise UserError(f"the backbone has no module {missing[0]}; name the one trained on.")
    return {name: matrix_of(name, layers[name]) for name in modules}


class _Some(Mapping[str, Tensor]):
    """Some entries of a mapping, looked up when asked for."""

    def __init__(self, every: Mapping[str, Tensor], names: list[str]) -> None:
        self._every, self._names = every, names

    def __getitem__(self, name: str) -> Tensor:
        return self._every[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def _load_backbone(config: HipConfig, backbone: str | Path | None) -> nn.Module:
    import transformers

    path = backbone if backbone is not None else config.base_model_name_or_path
    if path is None or (backbone is not None and not Path(path).is_dir()):
        what = f"there is no folder {path}" if path else "the adapter names no backbone"
        raise UserError(f"{what}; pass --backbone with the folder of the model it was trained on.")
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
            f"the backbone {path} cannot be loaded ({str(error).splitlines()[0]}); pass --backbone with the "
            "folder of the model that the adapter was trained on."
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
    alpha = cast(float, config.lora_alpha)  # set by its own configuration where it was None
    return scaling(name, rank, alpha=alpha, patterns=config.alpha_pattern, rslora=config.use_rslora)
