"""Adapter folders in: PEFT's LoRA, DoRA and AdaLoRA, from disk or the Hub, and HiP-LoRA, as exact updates."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hiplora.adapters.files import read_config
from hiplora.adapters.hip import read_hiplora
from hiplora.adapters.lora import KINDS, beyond_lora, read_lora
from hiplora.adapters.weights import INDEX, SINGLE, Weights
from hiplora.errors import UserError
from hiplora.updates import LowRank, Principal, Update


@dataclass(frozen=True)
class Adapter:
    """An adapter folder: its update per module, and what a merged adapter inherits."""

    label: str
    base: str | None
    revision: str | None
    task_type: str | None
    fan_in_fan_out: bool
    updates: dict[str, Update]


def read_adapter(source: str, *, backbone: Path | None = None) -> Adapter:
    """Read an adapter folder (or the Hub's ``owner/name``) as updates in float32.

    Args:
        source: folder with adapter_config.json and adapter_model.safetensors, or a repository on the Hub.
        backbone: folder of the backbone's weights; needed by DoRA, whose updates are formed from them when asked
            for, and by HiP-LoRA without a saved basis.

    Raises:
        UserError: no adapter there, or one whose update is not understood.
    """
    folder = locate(source)
    config = read_config(folder)
    kind = config.get("peft_type")
    updates: Mapping[str, Update]
    if kind == "HIPLORA":
        updates = _hiplora(source, folder, config, backbone)
    elif kind in KINDS:
        updates = read_lora(source, folder, config, weights=Weights(backbone) if backbone else None)
    else:
        raise UserError(f"{source} is a {kind} adapter; only LORA, ADALORA and HIPLORA adapters can be read.")
    return Adapter(
        label=source,
        base=config.get("base_model_name_or_path"),
        revision=config.get("revision"),
        task_type=config.get("task_type"),
        fan_in_fan_out=bool(config.get("fan_in_fan_out")),
        updates=dict(sorted(updates.items())),
    )


def locate(source: str) -> Path:
    """The local folder of an adapter, downloaded from the Hub where ``source`` is no folder but ``owner/name``."""
    folder = Path(source)
    if folder.is_dir():
        return folder
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", source):
        raise UserError(f"{source} is neither a folder nor a repository owner/name on the Hub.")
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(source, allow_patterns=["adapter_*"]))
    except Exception as error:
        raise UserError(
            f"{source} is no folder here and could not be fetched from the Hub ({type(error).__name__}); "
            "check the path, or the network."
        ) from error


def _hiplora(
    source: str, folder: Path, config: Mapping[str, Any], backbone: Path | None
) -> dict[str, LowRank | Principal]:
    """The updates of a HiP-LoRA folder, with their principal channels; refused where it trained more than these."""
    _, updates, rest = read_hiplora(folder, backbone=_backbone_of(config, backbone))
    if rest:
        raise beyond_lora(source, *next(iter(rest.items())))
    return updates


def _backbone_of(config: Mapping[str, Any], backbone: Path | None) -> Path | Weights | None:
    """The backbone's checkpoint, read matrix by matrix, where it is a folder of safetensors; else what was given."""
    named = config.get("base_model_name_or_path")
    folder = backbone if backbone is not None else Path(named) if named else None
    if folder is None or not any((folder / name).is_file() for name in (SINGLE, INDEX)):
        return backbone
    return Weights(folder)
