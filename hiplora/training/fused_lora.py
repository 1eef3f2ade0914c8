"""Replaces the forward pass of PEFT's plain LoRA layers during training by the product of HiP-LoRA's layers.

PEFT casts the layer's input to fp32, draws its dropout mask serially and runs four products. The fused product runs
two, in the backbone's dtype, with a faster mask. The update is the same, so plain LoRA, PiSSA and Split-LoRA are
compared with HiP-LoRA in the same arithmetic. DoRA and AdaLoRA keep PEFT's forward pass.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import MethodType
from typing import Any

from peft.tuners import lora
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn

from hiplora.tuner.layer import HipLinear
from hiplora.tuner.product import AdapterProduct, sample_dropout


@contextmanager
def fused_lora(model: nn.Module) -> Iterator[bool]:
    """A context in which the model's plain LoRA layers are fused; others (DoRA, merged, biased …) stay PEFT's.

    Yields whether every adapted layer draws its dropout by ``sample_dropout``, as fused ones and HiP-LoRA's do.
    """
    layers: list[Any] = [module for module in model.modules() if _is_plain(module)]
    ours = {*layers, *(module for module in model.modules() if isinstance(module, HipLinear))}
    for layer in layers:
        layer.forward = MethodType(_forward, layer)
    try:
        yield all(module in ours for module in model.modules() if isinstance(module, BaseTunerLayer))
    finally:
        for layer in layers:
            del layer.forward


def _is_plain(module: Any) -> bool:
    if type(module) is not lora.Linear or type(module.base_layer) is not nn.Linear:
        return False
    if module.merged_adapters or module.disable_adapters or module.fan_in_fan_out or len(module.active_adapters) != 1:
        return False
    (name,) = module.active_adapters
    return (
        name in module.lora_A
        and name not in module.lora_variant
        and module.lora_B[name].bias is None
        and isinstance(module.lora_dropout[name], nn.Dropout | nn.Identity)
    )


def _forward(layer: Any, x: Tensor) -> Tensor:
    """W x + s B A dropout(x), for x (…, n), in the dtype of the base layer's output (…, m)."""
    (name,) = layer.active_adapters
    result = layer.base_layer(x)
    dropout = layer.lora_dropout[name]
    rate = dropout.p if isinstance(dropout, nn.Dropout) and dropout.training else 0.0
    x = x.to(result.dtype)
    mask, gain = sample_dropout(x, rate)
    A, B = layer.lora_A[name].weight, layer.lora_B[name].weight
    return AdapterProduct.apply(result, x, None, A, B, None, layer.scaling[name] * gain, mask)
