"""The options of the group ``model``, and the device and arithmetic in which a backbone computes here."""

from __future__ import annotations

import os
import re
import sys
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field

from hiplora.config import Neutral, Options, Place
from hiplora.disk import typed_path
from hiplora.errors import UserError

if TYPE_CHECKING:
    import torch

AUTO, ALL_LINEAR = "auto", "all-linear"  # words for target modules that follow from the backbone's structure
_GPU_NODES = ("/dev/nvidiactl", "/dev/nvidia0", "/dev/kfd", "/dev/dxg", "/dev/nvhost-gpu")


def _targets(typed: Any) -> Any:
    """One of the two words as a tuple of itself; other values unchanged."""
    return (typed,) if typed in (AUTO, ALL_LINEAR) else typed


class Model(Options):
    """Options of the group ``model``: the frozen backbone, and the modules that an adapter is attached to.

    A result's identity contains the digest of the backbone's files (:func:`hiplora.models.identity`), ``dtype`` and,
    for a training, the target modules. Device and arithmetic are in ``where``. ``target_modules`` may be ``auto`` or
    ``all-linear``, which :mod:`hiplora.stages.targets` resolves from the files. ``chat_template`` makes every prompt of
    a benchmark a turn in the tokenizer's chat template. ``name`` is None if the label is to follow from ``path``
    (:attr:`label`). ``published_as`` is the backbone's name in model cards if
    ``path`` is not a repository on the Hub.
    """

    group: ClassVar[str] = "model"

    name: Annotated[str | None, Place]
    source: Annotated[Literal["packaged", "hub", "folder"], Place]
    path: Annotated[str, Place]
    revision: Annotated[str | None, Place]
    published_as: Annotated[str | None, Place] = None
    dtype: Literal["bfloat16", "float32"]
    device: Annotated[Literal["auto", "cpu", "cuda"], Place]
    arithmetic: Annotated[Literal["auto", "bfloat16", "float32"], Place] = "auto"
    target_modules: Annotated[  # a training has them as its own field
        tuple[str, ...], BeforeValidator(_targets), Field(strict=False), Place
    ]
    chat_template: Annotated[bool, Neutral(False)] = False

    def check_options(self) -> None:
        if self.dtype == "float32" and self.arithmetic == "bfloat16":
            raise UserError(
                "model.arithmetic=bfloat16 would round the weights that model.dtype=float32 asks for; "
                "type model.dtype=bfloat16, or leave model.arithmetic out."
            )
        if not self.target_modules:
            raise UserError("model.target_modules is empty; name at least one module, e.g. [q_proj].")
        twice = sorted({name for name in self.target_modules if self.target_modules.count(name) > 1})
        if twice:
            raise UserError(f"model.target_modules names {', '.join(twice)} more than once; name each module once.")
        word = next((name for name in self.target_modules if name in (AUTO, ALL_LINEAR)), None)
        if word is not None and len(self.target_modules) > 1:
            raise UserError(f"model.target_modules={word} stands for a whole list; type it alone.")

    @property
    def label(self) -> str:
        """The backbone in the names of records and in tables: ``name``, or else the last part of ``path``."""
        if self.name is not None:
            return self.name
        last = self.path.rpartition("/")[2] if self.source == "hub" else os.path.abspath(typed_path(self.path))
        return re.sub(r"[^\w.-]+", "_", Path(last).name) or self.source

    def where(self) -> str:
        """Device type and arithmetic, such as ``cpu-bfloat16``, under which a result is recorded."""
        return f"{device_type(self)}-{arithmetic(self)}"


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
    """The dtype in which the backbone computes: ``model.arithmetic``; if that is auto, ``model.dtype``, or ``float32``
    on a CPU without bfloat16 products.

    On such a CPU torch multiplies bf16 several times slower than fp32. fp32 holds every bf16 weight exactly, so the
    frozen weights and their singular directions are the same; only the rounding of activations differs.
    """
    if model.arithmetic != "auto":
        return model.arithmetic
    slow = model.dtype == "bfloat16" and device_type(model) == "cpu" and not _cpu_multiplies_bfloat16()
    return "float32" if slow else model.dtype


@cache
def _cpu_multiplies_bfloat16() -> bool:
    """Whether this CPU has bfloat16 products, by the flags that Linux lists; False on other systems."""
    try:
        flags = set(Path("/proc/cpuinfo").read_text().split())
    except OSError:
        return False
    x86, arm = {"avx512_bf16", "amx_bf16"}, {"bf16"}
    return bool(flags & x86) or ("asimd" in flags and bool(flags & arm))
