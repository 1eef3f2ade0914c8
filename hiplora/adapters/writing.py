"""Writes updates as a stock PEFT LoRA folder, exactly unless the rank is capped."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from peft import LoraConfig
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.nn.functional import pad

from hiplora.adapters.files import ADAPTER_PICKLE, ADAPTER_WEIGHTS
from hiplora.errors import UserError
from hiplora.spectral.recipes import truncated_svd
from hiplora.tuner.identity import PREFIX
from hiplora.updates import Dense, LowRank, Update, thin_svd
from hiplora.updates import zero as zero_update

DTYPES = {name: getattr(torch, name) for name in ("bfloat16", "float16", "float32")}
SAFETENSORS = {"BF16": torch.bfloat16, "F16": torch.float16, "F32": torch.float32}
PREFIX_OF_FACTORS = ".lora_"
ROUNDING = 1e-6
"""Share of ‖B‖ ‖A‖ below which ‖B A‖ is float32 rounding."""


def write_lora(
    updates: Mapping[str, Update],
    out: Path,
    *,
    rank: int | None = None,
    ranks: Literal["one", "own"] = "one",
    dtype: torch.dtype = torch.float32,
    beside: Mapping[str, Tensor] | None = None,
    **fields: Any,
) -> dict[str, Any]:
    """Write ``out`` as an adapter that stock PEFT loads: scaling 1, one rank for all modules.

    Args:
        updates: ΔW (m, n) by module; iterated over once, so a streamed mapping never holds two dense matrices.
        rank: cap on every matrix's rank; None keeps all factors unchanged.
        ranks: ``one`` pads factors of smaller rank with zeros, which changes no update. Tools that divide the one
            ``lora_alpha`` by each tensor's rank then scale all modules equally. ``own`` keeps each rank.
        dtype: of the factors in the file; they are rounded to it once, at the end.
        beside: other tensors to save under their names, such as those of ``modules_to_save``.
        **fields: of LoraConfig that do not follow from the updates: ``base_model_name_or_path``, ``task_type``, …

    Returns:
        A report: ``rank`` as written, ``min_rank`` before padding, the numbers of ``modules`` and of ``padded`` ones;
        the truncation's relative Frobenius error over all matrices and of the worst one; the rounding error unless
        ``dtype`` is float32; ``zero: true`` if all updates are 0.

    Raises:
        UserError: a full-rank update without ``rank``, or numbers too large for ``dtype``.
    """
    held: dict[str, LowRank] = {}
    truncation, rounding, zero = Truncation(), Truncation(), True
    for name, update in updates.items():
        factors, lost, norm = fitted(name, update, rank)
        truncation.add(name, lost, norm)
        zero = zero and vanishes(update, norm)
        held[name], lost = rounded(name, factors.to("cpu", torch.float32), dtype)
        rounding.add(name, lost, norm)
    own = {name: max(1, factors.rank) for name, factors in held.items()}  # a file has no factors of rank 0
    written = dict.fromkeys(own, max(own.values())) if ranks == "one" else own
    tensors = dict(beside or {})
    for name, factors in held.items():
        B, A = padded(factors, written[name])
        tensors |= {f"{PREFIX}{name}.lora_A.weight": A, f"{PREFIX}{name}.lora_B.weight": B}
    out.mkdir(parents=True, exist_ok=True)
    save_file(tensors, out / ADAPTER_WEIGHTS, metadata={"format": "pt"})
    lora_config(written, **fields).save_pretrained(str(out))
    counts = {"modules": len(own), "padded": sum(written[name] != own[name] for name in own)}
    report = {"rank": max(written.values()), "min_rank": min(own.values()), **counts, **truncation.report()}
    if dtype != torch.float32:
        report |= {"rounding_error": rounding.report()["relative_error"]}
    return report | {"dtype": dtype_name(dtype)} | ({"zero": True} if zero else {})


def rounded(name: str, factors: LowRank, dtype: torch.dtype) -> tuple[LowRank, float]:
    """Factors in a dtype, and the Frobenius norm of the rounding error of the update.

    Raises:
        UserError: numbers are too large for the dtype.
    """
    cast = factors.to(dtype)
    if dtype == torch.float32 or not factors.rank:
        return cast, 0.0
    for factor in (cast.B, cast.A):
        refuse_overflow(name, factor)
    back = cast.to(torch.float32)
    difference = LowRank(torch.cat([factors.B, -back.B], dim=1), torch.cat([factors.A, back.A], dim=0))
    return cast, difference.to(torch.float64).norm()


def refuse_overflow(name: str, stored: Tensor) -> None:
    """Refuse a tensor that overflowed in its dtype. Raises UserError."""
    if not torch.isfinite(stored).all():
        wider = "bfloat16 or float32" if stored.dtype == torch.float16 else "a smaller scale"
        raise UserError(f"The merged {name} holds numbers too large for {dtype_name(stored.dtype)}; try {wider}.")


def dtype_name(dtype: torch.dtype) -> str:
    """``bfloat16`` for torch.bfloat16."""
    return str(dtype).removeprefix("torch.")


def common_dtype(folders: Iterable[Path]) -> torch.dtype:
    """The dtype in which all factors of all these adapter folders are stored; float32 if they differ.

    Only the files' headers are read. Dtypes other than float16, bfloat16 and float32 count as float32.
    """
    found = {dtype for folder in folders for dtype in _stored(folder)}
    return found.pop() if len(found) == 1 and found <= set(DTYPES.values()) else torch.float32


def _stored(folder: Path) -> set[torch.dtype]:
    """The dtypes of the factors in a folder, in one file or several."""
    parts = sorted(folder.glob("adapter_model*.safetensors"))
    if not parts:
        tensors = torch.load(folder / ADAPTER_PICKLE, weights_only=True, map_location="meta")
        return {tensor.dtype for key, tensor in tensors.items() if PREFIX_OF_FACTORS in key}
    found: set[torch.dtype] = set()
    for path in parts:
        with safe_open(path, framework="pt") as handle:
            keys = [key for key in handle.keys() if PREFIX_OF_FACTORS in key]  # noqa: SIM118
            found |= {SAFETENSORS.get(handle.get_slice(key).get_dtype(), torch.float64) for key in keys}
    return found


def vanishes(update: Update, norm: float) -> bool:
    """Whether an update of this norm is 0, or only the rounding error of factors that cancel."""
    if isinstance(update, Dense):
        return norm == 0
    factors = update.factors()
    return norm <= ROUNDING * float(factors.B.norm()) * float(factors.A.norm())


def padded(factors: LowRank, rank: int) -> tuple[Tensor, Tensor]:
    """B (m, rank) and A (rank, n) of the same update, padded with zeros."""
    more = rank - factors.rank
    return pad(factors.B, (0, more)).contiguous(), pad(factors.A, (0, 0, 0, more)).contiguous()


def lora_config(ranks: Mapping[str, int], **fields: Any) -> LoraConfig:
    """A LoraConfig with α / r = 1 in every module; patterns are anchored, so that none matches another's suffix."""
    common = max(ranks.values(), key=lambda r: (list(ranks.values()).count(r), r))
    odd = {f"^{re.escape(name)}": r for name, r in ranks.items() if r != common}
    derived: dict[str, Any] = {"r": common, "lora_alpha": common, "rank_pattern": odd, "alpha_pattern": dict(odd)}
    return LoraConfig(**{"target_modules": sorted(ranks), "inference_mode": True, **fields, **derived})


def fitted(name: str, update: Update, rank: int | None) -> tuple[LowRank, float, float]:
    """Factors of an update, cut to a rank; the Frobenius norms of what was cut and of the update.

    Raises:
        UserError: the update has full rank and ``rank`` is None.
    """
    if isinstance(update, Dense):
        if rank is None:
            raise UserError(
                f"The merged update of {name} has full rank; give --rank R for a LoRA adapter, or --fold for weights."
            )
        return _cut_dense(update.weight, min(rank, *update.shape))
    factors = update.factors()
    if rank is None or factors.rank <= rank:
        return factors, 0.0, factors.norm()
    u, s, v = thin_svd(factors.to(torch.float64))
    # Factors beyond the numerical rank (repeated adapters) are no loss: only cut singular values count.
    cut = LowRank(u[:, :rank] * s[:rank], v[:, :rank].mT).to(torch.float32)
    return cut, float(s[rank:].norm()), float(s.norm())


def _cut_dense(weight: Tensor, rank: int) -> tuple[LowRank, float, float]:
    norm = float(torch.linalg.matrix_norm(weight))
    if norm == 0:
        return zero_update((weight.shape[0], weight.shape[1])), 0.0, 0.0
    basis = truncated_svd(weight, k=rank, recipe="auto")
    cut = LowRank(basis.U * basis.S, basis.V.mT)
    return cut, float(torch.linalg.matrix_norm(weight - cut.dense())), norm


class Truncation:
    """Sums up the relative Frobenius errors of updates that are cut or rounded, matrix by matrix."""

    def __init__(self) -> None:
        self._lost = self._whole = self._worst = 0.0
        self._name: str | None = None

    def add(self, name: str, lost: float, norm: float) -> None:
        """Add one matrix: the norms of its error and of its update."""
        self._lost, self._whole = self._lost + lost**2, self._whole + norm**2
        if norm and lost / norm > self._worst:
            self._worst, self._name = lost / norm, name

    def report(self) -> dict[str, Any]:
        """The overall relative error, the worst one and its matrix; errors are 0 if nothing was lost."""
        total = math.sqrt(self._lost / self._whole) if self._whole else 0.0
        return {"relative_error": total, "worst_relative_error": self._worst, "worst_matrix": self._name}
