"""Adapter folders."""

from __future__ import annotations

from pathlib import Path

from hiplora.disk import json_object
from hiplora.errors import UserError

ADAPTER_CONFIG = "adapter_config.json"


def check_complete(folder: Path) -> None:
    """Refuse a folder that lacks a file or holds a torn one, which each library would tell in its own way."""
    from safetensors import SafetensorError, safe_open

    configuration, weights = folder / ADAPTER_CONFIG, folder / "adapter_model.safetensors"
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
