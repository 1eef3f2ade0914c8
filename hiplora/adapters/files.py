"""The files of an adapter folder: their names, their configuration, and whether they are complete."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from hiplora.disk import json_object, typed_path
from hiplora.errors import UserError

ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
ADAPTER_INDEX = "adapter_model.safetensors.index.json"  # of an adapter in several files
ADAPTER_PICKLE = "adapter_model.bin"  # of PEFT's first year


# owner/name, owner/name@revision, and a folder in it; revisions of pull requests (refs/pr/1) contain slashes.
HUB = re.compile(r"(?P<name>[\w.-]+/[\w.-]+)(?:@(?P<revision>refs/\w+/[\w.-]+|[^/@]+))?(?:/(?P<folder>[^@]+))?")


def locate(source: str) -> Path:
    """The local folder of an adapter, downloaded from the Hub if ``source`` is not a folder.

    A source on the Hub is ``owner/name`` or ``owner/name@revision``, either one optionally followed by ``/a/folder``.

    Raises:
        UserError: ``source`` is neither, or cannot be downloaded.
    """
    folder = typed_path(source)
    if folder.is_dir():
        return folder
    hub = HUB.fullmatch(source)
    if not hub:
        raise UserError(f"{source} is neither a folder nor a repository owner/name[@revision][/folder] on the Hub.")
    from huggingface_hub import snapshot_download

    inside = hub["folder"].strip("/") if hub["folder"] else ""
    patterns = [f"{inside}/adapter_*" if inside else "adapter_*"]
    try:
        return Path(snapshot_download(hub["name"], revision=hub["revision"], allow_patterns=patterns)) / inside
    except Exception as error:
        raise UserError(
            f"{source} is not a local folder and could not be fetched from the Hub ({type(error).__name__}); "
            "check the path, or the network."
        ) from error


def adapter_files(folder: Path) -> list[Path]:
    """The files that determine an adapter: its configuration and its tensors, in one file or several.

    Raises:
        UserError: one of them is missing.
    """
    read_config(folder)
    if (folder / ADAPTER_WEIGHTS).is_file():
        weights = [folder / ADAPTER_WEIGHTS]
    elif (folder / ADAPTER_INDEX).is_file():
        weights = [folder / ADAPTER_INDEX, *sorted(folder.glob("adapter_model-*.safetensors"))]
    elif (folder / ADAPTER_PICKLE).is_file():
        weights = [folder / ADAPTER_PICKLE]
    else:
        raise no_weights(folder)
    return [folder / ADAPTER_CONFIG, *weights]


def no_weights(folder: Path) -> UserError:
    """The error for a folder without an adapter's tensors."""
    return UserError(
        f"{folder} holds neither {ADAPTER_WEIGHTS} (or its index) nor {ADAPTER_PICKLE}; give the folder "
        "that save_pretrained wrote."
    )


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
            raise ValueError(f"it holds a {type(value).__name__}, not an object")
        return value
    except ValueError as error:
        raise UserError(f"{path} is not valid JSON ({error}); save the adapter again.") from None


def check_complete(folder: Path) -> None:
    """Refuse a trained adapter's folder that lacks a file or holds a truncated one. Raises UserError."""
    from safetensors import SafetensorError, safe_open

    configuration, weights = folder / ADAPTER_CONFIG, folder / ADAPTER_WEIGHTS
    lacking = [path.name for path in (configuration, weights) if not path.is_file()]
    try:
        if lacking:
            raise ValueError(f"it has no {' and no '.join(lacking)}")
        json_object(configuration)
        with safe_open(weights, framework="np"):  # reads the header and checks the file's length against it
            pass
    except (OSError, ValueError, SafetensorError) as error:
        raise UserError(
            f"The adapter {folder} is not complete ({error}); delete this folder and run the command again, which "
            "trains it again."
        ) from error
