"""The modules of a backbone without weights, built by transformers from its config.json on the meta device."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import nn


@dataclass(frozen=True)
class Skeleton:
    """A model on the meta device.

    ``tied`` maps a parameter to the one that it is tied to. ``prefix`` is the part that a model with a head puts before
    the names of the model without one, such as ``transformer`` in GPT-2.
    """

    model: nn.Module
    modules: Mapping[str, nn.Module]
    tied: Mapping[str, str]
    prefix: str

    def names(self, name: str) -> tuple[str, ...]:
        """A module's or parameter's name, and the same name with the prefix removed or added."""
        start = f"{self.prefix}."
        if not self.prefix:
            return (name,)
        return name, name.removeprefix(start) if name.startswith(start) else start + name

    def transposed(self, module: str) -> bool | None:
        """Whether a module's weight is (in, out), as in Conv1D; None if the model does not show it."""
        from transformers.pytorch_utils import Conv1D

        found = next((self.modules[name] for name in self.names(module) if name in self.modules), None)
        if found is not None:
            return isinstance(found, Conv1D)
        # A checkpoint may name this module differently from the model; if no module is a Conv1D, this one is not.
        return None if any(isinstance(each, Conv1D) for each in self.modules.values()) else False


def skeleton(folder: Path) -> Skeleton | None:
    """The skeleton of the model in a folder; None without a config.json, or if transformers cannot build the model."""
    path = folder.resolve() / "config.json"
    return _built(path.parent, path.stat().st_mtime_ns) if path.is_file() else None


@lru_cache(maxsize=4)
def _built(folder: Path, changed: int) -> Skeleton | None:
    import transformers

    before = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity_error()
    try:
        config: Any = transformers.AutoConfig.from_pretrained(folder, trust_remote_code=False)
        model: Any = _model_class(config)
        with torch.device("meta"):
            built = model(config)
    except Exception:  # constructors raise anything; None says that the model is unknown, and callers act on it
        return None
    finally:
        transformers.logging.set_verbosity(before)
    tied = getattr(built, "all_tied_weights_keys", None) or {}
    return Skeleton(built, dict(built.named_modules()), dict(tied), getattr(built, "base_model_prefix", ""))


def _model_class(config: Any) -> Any:
    import transformers

    for name in config.architectures or ():
        if hasattr(transformers, name):
            return getattr(transformers, name)
    return transformers.AutoModelForCausalLM.from_config
