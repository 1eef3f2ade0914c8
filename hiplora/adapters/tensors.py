"""The tensors in an adapter folder, by names that do not depend on the library that saved them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from hiplora.adapters.files import ADAPTER_INDEX, ADAPTER_PICKLE, ADAPTER_WEIGHTS, no_weights
from hiplora.adapters.weights import weight_map
from hiplora.errors import UserError
from hiplora.spectral.stored import FLOATING

# Prefixes of torch.compile, FSDP, activation checkpointing, DDP and PEFT; each may occur several times.
_WRAPPERS = re.compile(r"(?:^|(?<=\.))(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
_PREFIX = re.compile(r"^(?:module\.)*base_model\.model\.")
# lora_A.weight, or lora_A.default.weight in a state dict that still has the adapter's name.
_NAMED = re.compile(
    r"^(?P<module>.+)\.(?P<part>lora_\w+|token_adapter\.trainable_tokens_delta)"
    r"\.(?P<name>(?!weight$|bias$)[^.]+)(?P<end>\.weight|\.bias)?$"
)
_SAVED = re.compile(r"^(?P<module>.+)\.modules_to_save\.(?P<name>[^.]+)\.(?P<end>.+)$")


def read_tensors(source: str, folder: Path) -> dict[str, Tensor]:
    """The tensors of a folder by plain names, such as ``model.layers.0.self_attn.q_proj.lora_A.weight``.

    Raises:
        UserError: no file, a damaged one, several adapters in one file, quantised values, or values that are not
            finite.
    """
    tensors: dict[str, Tensor] = {}
    names: set[str] = set()
    for key, tensor in _load(folder).items():
        plain, name = normalised(key)
        if ".original_module." in plain:  # the backbone's own copy of a module in modules_to_save
            continue
        if plain in tensors:
            raise UserError(f"{source} holds {plain} twice ({key} is one of them); save the adapter again.")
        tensors[plain] = tensor
        names |= {name} if name else set()
    if len(names) > 1:
        raise UserError(f"{source} holds the adapters {', '.join(sorted(names))} in one file; save each in its own.")
    _check_values(source, tensors)
    return tensors


def normalised(key: str) -> tuple[str, str | None]:
    """A key without wrappers' prefixes and the adapter's name, and that name if there was one."""
    key = _WRAPPERS.sub("", key)
    while match := _PREFIX.match(key):
        key = key[match.end() :]
    saved = _SAVED.match(key)
    if saved:
        return f"{saved['module']}.{saved['end']}", saved["name"]
    named = _NAMED.match(key)
    if named:
        return f"{named['module']}.{named['part']}{named['end'] or ''}", named["name"]
    return key, None


def _load(folder: Path) -> dict[str, Tensor]:
    if (folder / ADAPTER_WEIGHTS).is_file():
        return _read_file(folder / ADAPTER_WEIGHTS)
    if (folder / ADAPTER_INDEX).is_file():
        shards = sorted(set(weight_map(folder / ADAPTER_INDEX).values()))
        return {key: tensor for shard in shards for key, tensor in _read_file(folder / shard).items()}
    if (folder / ADAPTER_PICKLE).is_file():
        return _read_file(folder / ADAPTER_PICKLE)
    raise no_weights(folder)


def _read_file(path: Path) -> dict[str, Tensor]:
    from safetensors.torch import load_file

    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        return torch.load(path, weights_only=True, map_location="cpu")
    except Exception as error:  # each format raises its own exceptions for a damaged file
        raise UserError(f"{path} cannot be read ({_why(path, error)}); fetch or save it again.") from error


def _why(path: Path, error: Exception) -> str:
    with path.open("rb") as stream:
        if stream.read(40).startswith(b"version https://git-lfs"):
            return "it is a pointer of Git LFS, not the file; type git lfs pull in its folder"
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]


def _check_values(source: str, tensors: Mapping[str, Tensor]) -> None:
    for key, tensor in tensors.items():
        if tensor.dtype not in FLOATING:
            kind = str(tensor.dtype).removeprefix("torch.")
            raise UserError(f"{source} holds {key} as {kind}; save the adapter in fp32, fp16 or bf16.")
        if tensor.numel() and not bool(torch.isfinite(torch.stack(tensor.aminmax())).all()):
            raise UserError(
                f"{source} holds values that are not finite in {key}; its training diverged, or the file is damaged: "
                "leave it out, or fetch it again."
            )
