"""Where a merge is written: the folder and its report, and a backbone with the merged updates folded in."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hiplora.adapters.files import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from hiplora.adapters.weights import INDEX, files
from hiplora.adapters.writing import dtype_name, refuse_overflow
from hiplora.disk import json_object
from hiplora.errors import UserError
from hiplora.updates import Update

REPORT = "merge_report.json"
MERGED = {REPORT, ADAPTER_CONFIG, ADAPTER_WEIGHTS}
FOLDABLE = (torch.float32, torch.float16, torch.bfloat16, torch.float64)


def check_out(out: Path, inputs: Sequence[Path]) -> None:
    """Refuse a place where writing would lose something.

    Raises:
        UserError: ``out`` is a file, one of the inputs, or holds anything but an earlier merged adapter.
    """
    if any(out.resolve() == folder.resolve() for folder in inputs):
        raise UserError(f"--out {out} is one of the inputs; write the result somewhere else.")
    if out.exists() and not out.is_dir():
        raise UserError(f"--out {out} is a file; give a folder, which is created where there is none.")
    held = {path.name for path in out.iterdir()} if out.is_dir() else set()
    if held and not (REPORT in held and held <= MERGED):
        raise UserError(f"--out {out} holds something else than a merged adapter; give another or an empty folder.")


def write_folded(
    updates: Mapping[str, Update], backbone: Path, out: Path, *, dtype: torch.dtype | None = None
) -> dict[str, Any]:
    """Copy a backbone folder to ``out`` with W + ΔW in place of W, one file at a time.

    Every tensor keeps the dtype in which it is stored, or all get ``dtype``, and config.json says so.

    Raises:
        UserError: a module that the backbone lacks, or of another shape, or sums too large for the dtype.
    """
    table = files(backbone)
    modules = {f"{name}.weight": name for name in updates}
    absent = sorted(set(modules) - set(table))
    if absent:
        raise UserError(f"{backbone} has no {absent[0]}; give the backbone these adapters were trained on.")
    out.mkdir(parents=True, exist_ok=True)
    for shard in sorted(set(table.values())):
        _fold_file(shard, out / shard.name, modules, updates, dtype=dtype)
    for path in backbone.iterdir():
        if path.is_file() and (path.suffix != ".safetensors" or path.name == INDEX):
            shutil.copy2(path, out / path.name)
    if dtype is not None:
        _say_dtype(out, dtype)
    return {"folded": len(modules)}


def _say_dtype(out: Path, dtype: torch.dtype) -> None:
    """Name the dtype in config.json, and the size of the weights in their index."""
    config, index = out / "config.json", out / INDEX
    if config.is_file():
        raw = json_object(config)
        names = [name for name in ("dtype", "torch_dtype") if name in raw] or ["torch_dtype"]
        config.write_text(json.dumps(raw | dict.fromkeys(names, dtype_name(dtype)), indent=2) + "\n")
    if index.is_file():
        raw = json_object(index)
        size = sum(path.stat().st_size - header(path) for path in out.glob("*.safetensors"))
        raw["metadata"] = {**raw.get("metadata", {}), "total_size": size}
        index.write_text(json.dumps(raw, indent=2) + "\n")


def header(path: Path) -> int:
    """Bytes of a safetensors file before its tensors: a length of 8 bytes and as much JSON as it says."""
    with path.open("rb") as file:
        return 8 + int.from_bytes(file.read(8), "little")


def _fold_file(
    source: Path,
    target: Path,
    modules: Mapping[str, str],
    updates: Mapping[str, Update],
    *,
    dtype: torch.dtype | None,
) -> None:
    from safetensors import safe_open
    from safetensors.torch import save_file

    tensors: dict[str, Tensor] = {}
    with safe_open(source, framework="pt") as handle:
        for key in handle.keys():  # noqa: SIM118
            weight = handle.get_tensor(key)
            if key in modules:
                update = updates[modules[key]]
                _fits(modules[key], update.shape, weight)
                weight = (weight.float() + update.dense().to(weight.device)).to(dtype or weight.dtype)
                refuse_overflow(key, weight)
            tensors[key] = weight.to(dtype) if dtype is not None and weight.dtype in FOLDABLE else weight
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
