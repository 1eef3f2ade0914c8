"""Weights of a backbone folder (safetensors, one file or sharded), read one tensor at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hiplora.adapters.skeleton import Skeleton, skeleton
from hiplora.disk import json_object
from hiplora.errors import UserError
from hiplora.spectral.stored import refuse_quantised

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
_VALUES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


def files(folder: Path) -> dict[str, Path]:
    """Tensor name → safetensors file.

    Raises:
        UserError: the folder holds no safetensors checkpoint, or a damaged one.
    """
    if (folder / INDEX).is_file():
        return {name: folder / file for name, file in weight_map(folder / INDEX).items()}
    if (folder / SINGLE).is_file():
        with opened(folder / SINGLE) as handle:
            return dict.fromkeys(handle.keys(), folder / SINGLE)
    raise UserError(
        f"{folder} holds neither {SINGLE} nor {INDEX}; give the folder of the backbone's safetensors checkpoint."
    )


def weight_map(index: Path) -> dict[str, str]:
    """Tensor name → file name, from the index of a sharded checkpoint. Raises UserError if a file is missing."""
    try:
        table = dict(json_object(index)["weight_map"])
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{index} is not an index of a sharded checkpoint ({error}); fetch it again.") from None
    absent = sorted(file for file in set(table.values()) if not (index.parent / file).is_file())
    if absent:
        raise UserError(f"{index.parent} has no {absent[0]}, which its {index.name} names; add the missing files.")
    return table


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """An open safetensors file. Raises UserError if it is damaged."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as handle:
            yield handle
    except SafetensorError as error:
        raise UserError(f"{path} cannot be read ({error}); fetch or save it again.") from error


class Weights(Mapping[str, Tensor]):
    """A checkpoint by module: ``weights["model.layers.0.self_attn.q_proj"]`` is that module's weight, read on access.

    A tied weight (``lm_head`` to the embedding) is found under the other's name, and names are found with or without
    the prefix of a model with a head. Quantised weights raise UserError.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.files = files(folder)
        ending = ".weight"
        self._modules = tuple(name.removesuffix(ending) for name in self.files if name.endswith(ending))
        self._beside: dict[str, set[str]] = {}
        for name in self.files:
            parts = name.split(".")
            for i in range(1, len(parts)):  # a companion's name has one or two parts: "SCB", "weight.absmax"
                if len(parts) - i <= 2:
                    self._beside.setdefault(".".join(parts[:i]), set()).add(".".join(parts[i:]))

    def __iter__(self) -> Iterator[str]:
        return iter(self._modules)

    def __len__(self) -> int:
        return len(self._modules)

    @property
    def skeleton(self) -> Skeleton | None:
        """The model without its weights; None if transformers cannot build it."""
        return skeleton(self.folder)

    def __getitem__(self, module: str) -> Tensor:
        """The weight of one module as it is stored.

        Raises:
            UserError: the checkpoint lacks the module, or has it quantised.
        """
        with self._open(module) as (handle, name):
            return handle.get_tensor(name)

    def parameter(self, name: str) -> Tensor | None:
        """A parameter as it is stored; None if the checkpoint lacks it. Raises UserError if it is quantised."""
        stored = self.stored_name(name)
        if name.endswith(".weight") and stored:
            return self[name.removesuffix(".weight")]
        if stored is None:
            return None
        with opened(self.files[stored]) as handle:
            return handle.get_tensor(stored)

    def matrix(self, module: str, shape: tuple[int, int]) -> Tensor:
        """The weight (out, in), however it is stored. Raises as :meth:`transposed`."""
        return self[module].mT if self.transposed(module, shape) else self[module]

    def transposed(self, module: str, shape: tuple[int, int]) -> bool:
        """Whether the checkpoint holds the transpose of a weight of this shape (out, in).

        The module's class decides and, if the model cannot be built, the stored shape. An adapter's ``fan_in_fan_out``
        does not: it only describes the last module that PEFT processed.

        Raises:
            UserError: the stored shape is neither, or the weight is square and the model's class is unknown.
        """
        stored = self.shape(module)
        known = self.skeleton.transposed(module) if self.skeleton else None
        if known is None and stored == shape[::-1] and shape[0] == shape[1]:
            raise UserError(
                f"{module} is square, and config.json in {self.folder} names no model class of transformers that shows "
                "whether its weight is stored transposed (Conv1D); give a folder that does, or write an adapter."
            )
        turned = known if known is not None else stored == shape[::-1]
        if (stored[::-1] if turned else stored) != shape:
            raise UserError(
                f"{module} is {stored} in the backbone but {shape} in the adapters; give the backbone these adapters "
                "were trained on."
            )
        return turned

    def shape(self, module: str) -> tuple[int, ...]:
        """The stored shape of a module's weight, without reading it. Raises as ``weights[module]``."""
        with self._open(module) as (handle, name):
            return tuple(handle.get_slice(name).get_shape())

    def stored_name(self, parameter: str) -> str | None:
        """The name under which the checkpoint holds a parameter or the one it is tied to; None if it has neither."""
        model = self.skeleton if parameter not in self.files else None
        own = (parameter,) if model is None else model.names(parameter)
        shared = [] if model is None else [name for each in own for name in model.names(model.tied.get(each, each))]
        return next((name for name in (*own, *shared) if name in self.files), None)

    @contextmanager
    def _open(self, module: str) -> Iterator[tuple[Any, str]]:
        name = self.stored_name(f"{module}.weight")
        if name is None:
            refuse_quantised(module, companions=self._beside.get(module, ()))
            raise UserError(f"{self.folder} has no {module}.weight; give the backbone these adapters were trained on.")
        with opened(self.files[name]) as handle:
            stored = handle.get_slice(name).get_dtype()
            beside = self._beside.get(name.removesuffix(".weight"), set()) - {"weight"}
            refuse_quantised(module, _VALUES.get(stored, stored), companions=beside)
            yield handle, name
