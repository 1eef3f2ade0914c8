"""Where a merge is written: the folder and its report, and a backbone with the merged updates folded in."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hiplora.adapters.results import MARKER
from hiplora.adapters.weights import INDEX, files
from hiplora.errors import UserError
from hiplora.updates import Update

REPORT = "merge_report.json"
WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".gguf", ".h5", ".msgpack", ".onnx")  # not those of the result
COMMAND = "hiplora-merge"
FOLDABLE = (torch.float32, torch.float16, torch.bfloat16, torch.float64)


def write_folded(updates: Mapping[str, Update], backbone: Path, out: Path) -> dict[str, Any]:
    """Copy a backbone folder to ``out`` with W + ΔW in place of W, in the stored dtype, one file at a time.

    Raises:
        UserError: a module that the backbone lacks, or of another shape.
    """
    table = files(backbone)
    modules = {f"{name}.weight": name for name in updates}
    absent = sorted(set(modules) - set(table))
    if absent:
        raise UserError(f"{backbone} has no {absent[0]}; give the backbone these adapters were trained on.")
    out.mkdir(parents=True, exist_ok=True)
    for shard in sorted(set(table.values())):
        _fold_file(shard, out / shard.name, modules, updates)
    for path in backbone.iterdir():
        weights = path.suffix in WEIGHTS or (path.name.endswith(".index.json") and path.name != INDEX)
        if path.is_file() and not weights and path.name not in (MARKER, REPORT):
            shutil.copy2(path, out / path.name)
    return {"folded": len(modules)}


def _fold_file(source: Path, target: Path, modules: Mapping[str, str], updates: Mapping[str, Update]) -> None:
    from safetensors import safe_open
    from safetensors.torch import save_file

    tensors: dict[str, Tensor] = {}
    with safe_open(source, framework="pt") as handle:
        for key in handle.keys():  # noqa: SIM118
            weight = handle.get_tensor(key)
            if key in modules:
                update = updates[modules[key]]
                _fits(modules[key], update.shape, weight)
                weight = (weight.float() + update.dense().to(weight.device)).to(weight.dtype)
            tensors[key] = weight
    save_file(tensors, target, metadata={"format": "pt"})


def _fits(name: str, shape: tuple[int, int], weight: Tensor) -> None:
    if tuple(weight.shape) != shape:
        raise UserError(f"{name} is {tuple(weight.shape)} in the backbone but {shape} in the adapters; give their own.")
    if weight.dtype not in FOLDABLE:
        raise UserError(
            f"{name} is stored as {str(weight.dtype).removeprefix('torch.')}, a quantised format that ΔW cannot be "
            "added to; give the backbone in fp32, fp16 or bf16, or write an adapter."
        )


def write_report(report: Mapping[str, Any], out: Path) -> None:
    """``merge_report.json`` beside the result: operator, options, errors and inputs."""
    (out / REPORT).write_text(json.dumps(report, indent=2) + "\n")
