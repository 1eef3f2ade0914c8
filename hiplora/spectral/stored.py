"""Detects and refuses quantised weights: those that store codes instead of values."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from hiplora.errors import UserError

FLOATING = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
# Tensors that bitsandbytes, GPTQ, AWQ, compressed-tensors, fp8, HQQ, AQLM, QuIP and torchao store for a linear layer.
# weight_g and weight_v belong to weight normalisation, which is not quantised.
_COMPANION = re.compile(
    r"(weight[.:].+|weight_(?![gv]$).+|qweight|qzeros|scales?|zeros|g_idx|SCB|absmax|quant_map|quant_state.*|nested_.*"
    r"|(in|out)put_scale|scale_inv|W_q|codebooks|codes|Qidxs.*|SU|SV)"
)


def refuse_quantised(name: str, weight: Any = None, *, companions: Iterable[str] = ()) -> None:
    """Refuse a module with a quantised weight.

    Args:
        name: of the module.
        weight: a tensor or a dtype; None if the module has no tensor of that name.
        companions: names of the module's other tensors, such as ``bias``, ``SCB`` or ``weight.absmax``.

    Raises:
        UserError: the weight is quantised.
    """
    found = _format(weight) or next((each for each in sorted(companions) if _COMPANION.fullmatch(each)), None)
    if found:
        raise UserError(f"{name} is quantised ({found}); give the backbone in fp32, fp16 or bf16.")


def refuse_quantised_module(name: str, module: nn.Module) -> None:
    """:func:`refuse_quantised` for a module in memory, whichever library it is from."""
    held = {each for each, _ in [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]}
    refuse_quantised(name, getattr(module, "weight", None), companions=held - {"weight"})


def _format(weight: Any) -> str | None:
    """The name of a dtype outside FLOATING or of a quantising tensor class; None for a plain tensor."""
    if weight is None:
        return None
    dtype = weight.dtype if isinstance(weight, Tensor) else weight
    if dtype not in FLOATING:
        return str(dtype).removeprefix("torch.")
    # torchao's tensors report bf16 as their dtype; .data of a parameter is its tensor.
    own = type(weight.data) if isinstance(weight, Tensor) else Tensor
    return None if own is Tensor or "quant" not in f"{own.__module__}.{own.__name__}".lower() else own.__name__
