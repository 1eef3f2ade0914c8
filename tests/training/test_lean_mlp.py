from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor
from transformers import AutoModelForCausalLM

from hiplora.training.lean_mlp import lean_mlp


def attached(folder: Path, dtype: torch.dtype, *targets: str) -> Any:
    backbone = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype)
    torch.manual_seed(0)
    return get_peft_model(backbone, LoraConfig(r=4, target_modules=[*targets], init_lora_weights=False))


def step(model: Any) -> tuple[Tensor, list[Tensor], int]:
    """Logits, gradients, and bytes that are kept for the backward pass."""
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    unpack: Callable[[Tensor], Tensor] = lambda tensor: tensor  # noqa: E731
    with torch.autograd.graph.saved_tensors_hooks(pack, unpack):
        logits = model(torch.arange(2, 200).view(3, 66), use_cache=False).logits
    gradients = torch.autograd.grad(logits.float().square().mean(), [p for p in model.parameters() if p.requires_grad])
    return logits.detach(), list(gradients), sum(kept.values())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_same_bits_and_less_kept(tiny: Path, dtype: torch.dtype) -> None:
    model = attached(tiny, dtype, "q_proj", "v_proj")
    logits, gradients, kept = step(model)
    with lean_mlp(model):
        lean_logits, lean_gradients, lean_kept = step(model)
    assert torch.equal(lean_logits, logits)
    assert all(map(torch.equal, lean_gradients, gradients))
    intermediate = model.config.num_hidden_layers * 198 * model.config.intermediate_size * dtype.itemsize
    assert kept - lean_kept >= intermediate
    assert not any("forward" in vars(module) for module in model.modules())


def test_adapted_and_trained_mlps_stay_as_they_are(tiny: Path) -> None:
    adapted = attached(tiny, torch.float32, "up_proj")
    trained = AutoModelForCausalLM.from_pretrained(tiny)
    with lean_mlp(adapted), lean_mlp(trained):
        assert not any("forward" in vars(module) for model in (adapted, trained) for module in model.modules())
