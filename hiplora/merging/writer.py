"""Merged updates out: a stock PEFT LoRA adapter (exact where the rank allows) or folded weights."""

from __future__ import annotations

import json
import math
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hiplora.errors import UserError
from hiplora.merging.checks import zero
from hiplora.merging.factors import thin
from hiplora.merging.weights import INDEX, files
from hiplora.updates import Dense, LowRank, Update, thin_svd

REPORT = "merge_report.json"
FOLDABLE = (torch.float32, torch.float16, torch.bfloat16, torch.float64)


MERGED = {REPORT, "adapter_config.json", "adapter_model.safetensors"}


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


def write_lora(
    updates: Mapping[str, Update],
    out: Path,
    *,
    rank: int | None = None,
    base: str | None = None,
    task_type: str | None = None,
    fan_in_fan_out: bool = False,
) -> dict[str, Any]:
    """Write ``out`` as an adapter that stock PEFT loads; scaling 1, ranks per module where they differ.

    Args:
        updates: merged updates; walked once, so a streamed mapping never holds more than one dense matrix.
        rank: cap on every matrix's rank; None keeps all factors as they are.

    Returns:
        ranks, and the relative Frobenius error of the truncation: over all matrices and the worst one.

    Raises:
        UserError: a full-rank update and no rank to cut it to.
    """
    from safetensors.torch import save_file

    tensors: dict[str, Tensor] = {}
    ranks: dict[str, int] = {}
    error = Error()
    for name, update in updates.items():
        factors, lost, norm = fitted(name, update, rank)
        error.add(name, lost, norm)
        ranks[name] = factors.rank
        tensors[f"base_model.model.{name}.lora_A.weight"] = factors.A.float().cpu().contiguous()
        tensors[f"base_model.model.{name}.lora_B.weight"] = factors.B.float().cpu().contiguous()
    out.mkdir(parents=True, exist_ok=True)
    save_file(tensors, out / "adapter_model.safetensors", metadata={"format": "pt"})
    config = lora_config(ranks, base=base, task_type=task_type, fan_in_fan_out=fan_in_fan_out)
    config.save_pretrained(str(out))
    return {"rank": max(ranks.values()), "min_rank": min(ranks.values()), **error.report()}


def lora_config(ranks: Mapping[str, int], *, base: str | None, task_type: str | None, fan_in_fan_out: bool):
    """LoraConfig with scaling α / r = 1 everywhere; patterns are anchored, so that none matches another's suffix."""
    from peft import LoraConfig

    common = max(ranks.values(), key=lambda r: (list(ranks.values()).count(r), r))
    odd = {f"^{re.escape(name)}": r for name, r in ranks.items() if r != common}
    return LoraConfig(
        r=common,
        lora_alpha=common,
        rank_pattern=odd,
        alpha_pattern=dict(odd),
        target_modules=sorted(ranks),
        base_model_name_or_path=base,
        task_type=task_type,
        fan_in_fan_out=fan_in_fan_out,
        inference_mode=True,
    )


def fitted(name: str, update: Update, rank: int | None) -> tuple[LowRank, float, float]:
    """Factors of an update within a rank, the Frobenius norm of what was cut, and the update's own norm."""
    if isinstance(update, Dense):
        if rank is None:
            raise UserError(
                f"The merged update of {name} has full rank; give --rank R for a LoRA adapter, or --fold for weights."
            )
        return _cut_dense(update.weight, min(rank, *update.shape))
    factors = update.factors()
    if rank is None or factors.rank <= rank:
        return (factors if factors.rank else zero(update.shape)), 0.0, factors.norm()
    u, s, v = thin_svd(thin(update))
    # More factors than numerical rank (repeated adapters) are no loss: only what is cut counts.
    cut = LowRank(u[:, :rank] * s[:rank], v[:, :rank].mT).to(torch.float32)
    return cut, float(s[rank:].norm()), float(s.norm())


def _cut_dense(weight: Tensor, rank: int) -> tuple[LowRank, float, float]:
    from hiplora.spectral import truncated_svd

    norm = float(torch.linalg.matrix_norm(weight))
    if norm == 0:
        return zero((weight.shape[0], weight.shape[1])), 0.0, 0.0
    basis = truncated_svd(weight, k=rank, recipe="auto")
    cut = LowRank(basis.U * basis.S, basis.V.mT)
    return cut, float(torch.linalg.matrix_norm(weight - cut.dense())), norm


class Error:
    """Relative Frobenius error of a truncation, gathered matrix by matrix."""

    def __init__(self) -> None:
        self._lost = self._whole = self._worst = 0.0
        self._name: str | None = None

    def add(self, name: str, lost: float, norm: float) -> None:
        """Account for one matrix."""
        self._lost, self._whole = self._lost + lost**2, self._whole + norm**2
        if norm and lost / norm > self._worst:
            self._worst, self._name = lost / norm, name

    def report(self) -> dict[str, Any]:
        """Overall and worst relative error; 0 where nothing was cut."""
        total = math.sqrt(self._lost / self._whole) if self._whole else 0.0
        return {"relative_error": total, "worst_relative_error": self._worst, "worst_matrix": self._name}


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
        if path.is_file() and (path.suffix != ".safetensors" or path.name == INDEX):
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
