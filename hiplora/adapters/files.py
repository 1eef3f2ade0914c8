"""The files of an adapter folder: their names, the configuration, and whether they are complete."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hiplora.disk import json_object
from hiplora.errors import UserError

ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
ADAPTER_INDEX = "adapter_model.safetensors.index.json"  # of an adapter in several files
ADAPTER_PICKLE = "adapter_model.bin"  # what PEFT wrote in its first year


def read_config(folder: Path) -> dict[str, Any]:
    """The content of adapter_config.json.

    Raises:
        UserError: the folder has none, or it is not valid JSON.
    """
    path = folder / ADAPTER_CONFIG
    if not path.is_file():
        raise UserError(f"{folder} has no {ADAPTER_CONFIG}; name a folder written by save_pretrained.")
    try:
        value = json.loads(path.read_bytes())  # bytes: UTF-8 with or without a byte order mark, whatever the locale
        if not isinstance(value, dict):
            raise ValueError(f"it holds a {type(value).__name__}, no object")
        return value
    except ValueError as error:
        raise UserError(f"{path} is not valid JSON ({error}); save the adapter again.") from None


def check_complete(folder: Path) -> None:
    """Refuse a folder that lacks a file or holds a torn one, which each library would tell in its own way."""
    from safetensors import SafetensorError, safe_open

    configuration, weights = folder / ADAPTER_CONFIG, folder / ADAPTER_WEIGHTS
    lacking = [path.name for path in (configuration, weights) if not path.is_file()]
    try:
        if lacking:
            raise ValueError(f"it has no {' and no '.join(lacking)}")
        json_object(configuration)
        with safe_open(weights, framework="np"):  # reads the header, and whether the file is as long as it says
            pass
    except (OSError, ValueError, SafetensorError) as error:
        raise UserError(
            f"The adapter {folder} is not complete ({error}); delete this folder and type the command again, which "
            "trains it anew."
        ) from error
