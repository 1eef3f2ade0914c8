"""Weights of a backbone folder (safetensors, one file or sharded), read one tensor at a time."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import Tensor

from hiplora.errors import UserError

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"


def files(folder: Path) -> dict[str, Path]:
    """Tensor name → safetensors file.

    Raises:
        UserError: the folder holds no safetensors checkpoint.
    """
    from safetensors import safe_open

    if (folder / INDEX).is_file():
        table = json.loads((folder / INDEX).read_text())["weight_map"]
        absent = sorted(file for file in set(table.values()) if not (folder / file).is_file())
        if absent:
            raise UserError(f"{folder} has no {absent[0]}, which its {INDEX} names; give a complete checkpoint.")
        return {name: folder / file for name, file in table.items()}
    if (folder / SINGLE).is_file():
        with safe_open(folder / SINGLE, framework="pt") as handle:
            return dict.fromkeys(handle.keys(), folder / SINGLE)
    raise UserError(
        f"{folder} holds neither {SINGLE} nor {INDEX}; give the folder of the backbone's safetensors checkpoint."
    )


class Weights(Mapping[str, Tensor]):
    """A checkpoint by module: ``weights["model.layers.0.self_attn.q_proj"]`` is (m, n), read when asked for."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._files = files(folder)
        ending = ".weight"
        self._modules = tuple(name.removesuffix(ending) for name in self._files if name.endswith(ending))

    def __iter__(self) -> Iterator[str]:
        return iter(self._modules)

    def __len__(self) -> int:
        return len(self._modules)

    def __getitem__(self, module: str) -> Tensor:
        """The weight of one module in its stored dtype.

        Raises:
            UserError: the checkpoint has no such module.
        """
        with self._open(module) as (handle, name):
            return handle.get_tensor(name)

    def shape(self, module: str) -> tuple[int, ...]:
        """Its shape, without reading it. Raises as the weight itself."""
        with self._open(module) as (handle, name):
            return tuple(handle.get_slice(name).get_shape())

    @contextmanager
    def _open(self, module: str) -> Iterator[tuple[Any, str]]:
        from safetensors import safe_open

        name = f"{module}.weight"
        if name not in self._files:
            raise UserError(f"{self._folder} has no {name}; give the backbone these adapters were trained on.")
        with safe_open(self._files[name], framework="pt") as handle:
            yield handle, name
