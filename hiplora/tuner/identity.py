"""The identity of the basis in a saved adapter, and its check on loading."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from peft.utils import SAFETENSORS_WEIGHTS_NAME, WEIGHTS_NAME, load_peft_weights
from torch import Tensor

from hiplora.errors import UserError
from hiplora.spectral.orthogonal import ieee_products
from hiplora.spectral.recipes import Basis
from hiplora.tuner.basis import SingularBasis
from hiplora.tuner.config import HipConfig

TOLERANCE = 0.02  # absolute for sketches, relative to the largest σ for σ; another backbone differs by about 1
IDENTITY = ("lora_sigma", "lora_sketch", "lora_U", "lora_V")
PREFIX = "base_model.model."  # what a PeftModel puts before the backbone's module names


def describe(basis: SingularBasis, config: HipConfig) -> dict[str, Tensor]:
    """σ (k,), the sketch (2, k) and, with save_basis, U (m, k) and V (n, k), by their names in the file."""
    k = config.k
    tensors = {"lora_sigma": basis.S[:k].clone(), "lora_sketch": basis.sketch(k)}
    if config.save_basis:
        tensors |= {"lora_U": basis.U[:, :k].clone(), "lora_V": basis.V[:, :k].clone()}
    return tensors


def phi_name(config: HipConfig) -> str:
    """Name of the trained gains in the file: δ has one of its own, so that it is never read as φ."""
    return "lora_delta" if config.parameterization == "relative" else "lora_phi"


def check_saved(bases: Mapping[str, SingularBasis], state_dict: Mapping[str, Tensor], config: HipConfig) -> None:
    """Refuse a saved adapter that lacks a tensor, has other gains or belongs to other bases. Raises UserError."""
    saved = {key.removeprefix(PREFIX): tensor for key, tensor in state_dict.items()}
    phi = (phi_name(config),) if config.principal else ()
    for name, basis in bases.items():
        for part in ("lora_A.weight", "lora_B.weight", *phi, "lora_sigma", "lora_sketch"):
            if f"{name}.{part}" not in saved:
                raise UserError(
                    f"the saved adapter has no {name}.{part}, so it is not complete for this configuration; "
                    "load a folder that a HiP-LoRA model saved, together with its own adapter_config.json."
                )
        size = saved[f"{name}.lora_sigma"].numel()
        if size != config.k:
            raise UserError(
                f"the saved adapter keeps {size} singular directions of {name} instead of k={config.k}; "
                "load it under a new adapter name, so that its own adapter_config.json is used."
            )
        difference = (basis.sketch(config.k) - saved[f"{name}.lora_sketch"].cpu().float()).abs().max().item()
        _check_difference(name, "sketches", difference, config)
        # Random directions are the same for every backbone with these module names; S = u_iᵀ W v_i is not.
        sigma, S = saved[f"{name}.lora_sigma"].cpu().float(), basis.S[: config.k].cpu()
        largest = S.abs().max().clamp_min(torch.finfo(S.dtype).tiny)
        _check_difference(name, "values of σ", ((S - sigma).abs().max() / largest).item(), config)
    placed = {f"{name}.{part}" for name in bases for part in phi}
    for key in sorted(set(saved) - placed):
        if key.endswith((".lora_phi", ".lora_delta")):
            raise UserError(
                f"the saved adapter has {key}, for which the model's adapter has no place; load it under a new adapter "
                "name, so that its own adapter_config.json is used."
            )


def _check_difference(name: str, what: str, difference: float, config: HipConfig) -> None:
    if not difference <= TOLERANCE:
        origin = f" ({config.base_model_name_or_path})" if config.base_model_name_or_path else ""
        raise UserError(
            f"the adapter was trained on another backbone or singular basis (at {name} the {what} differ "
            f"by {difference:.2g}, tolerance {TOLERANCE}); load the weights it was trained on{origin}, "
            "in the dtype of that training (dtype=torch.bfloat16, say), so that the same basis is computed again, or "
            "save it with save_basis=True."
        )


@ieee_products()
def carried_bases(weights: Mapping[str, Tensor], config: HipConfig) -> dict[str, SingularBasis] | None:
    """The bases that ``save_basis`` saved beside the configuration; None if there are none or they do not fit.

    They fit the weights W (m, n) if every u_iᵀ W v_i is the saved σ_i, within ``TOLERANCE`` of the largest.
    """
    saved = saved_tensors(config) if config.save_basis else None
    if saved is None:
        return None
    bases = {}
    for name, weight in weights.items():
        parts = [saved.get(f"{PREFIX}{name}.{part}") for part in ("lora_U", "lora_sigma", "lora_V")]
        U, S, V = parts
        if U is None or S is None or V is None or (U.shape[0], V.shape[0]) != tuple(weight.shape):
            return None
        basis = SingularBasis(
            Basis(U, S, V, 0.0), options=config.basis_options, key=config.svd_key, device=weight.device
        )
        rayleigh = ((weight.detach().float() @ basis.V) * basis.U).sum(dim=0)
        if not bool((rayleigh - basis.S).abs().max() <= TOLERANCE * basis.S.abs().max()):
            return None
        bases[name] = basis
    return bases


def match_saved(bases: Mapping[str, SingularBasis], config: HipConfig) -> bool:
    """Whether the sketches saved beside the configuration are those of these bases; True if none are saved."""
    saved = saved_tensors(config) or {}
    pairs = [(saved.get(f"{PREFIX}{name}.lora_sketch"), basis.sketch(config.k)) for name, basis in bases.items()]
    known = [(kept.float(), own) for kept, own in pairs if kept is not None and kept.shape == own.shape]
    return all(bool((kept - own).abs().max() <= TOLERANCE) for kept, own in known)


def saved_tensors(config: HipConfig) -> dict[str, Tensor] | None:
    """The tensors of the adapter file beside the configuration, on the CPU; None if there is no such file."""
    if config._source is None:
        return None
    path, hub = config._source
    folder = Path(path) / hub.get("subfolder", "")
    files = (SAFETENSORS_WEIGHTS_NAME, WEIGHTS_NAME)
    if folder.is_dir() and not any((folder / file).is_file() for file in files):
        return None
    return load_peft_weights(path, device="cpu", **hub)


def common_key(bases: Mapping[str, SingularBasis]) -> str | None:
    """The key under which all bases were computed, None if they have several."""
    keys = {basis.key for basis in bases.values()}
    return keys.pop() if len(keys) == 1 else None


def reusable(basis: SingularBasis, config: HipConfig) -> bool:
    """Whether an adapter with this configuration can use an existing basis."""
    return basis.options == config.basis_options and basis.size >= config.k
