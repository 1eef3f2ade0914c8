from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from hiplora.training.fused_lora import fused_lora


def lora(folder: Path, **options: Any) -> Any:
    backbone = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    torch.manual_seed(0)
    model = get_peft_model(backbone, LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "up_proj"], **options))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.normal_(std=0.1)
    return model.train()


def loss_and_gradients(model: Any) -> tuple[torch.Tensor, list[torch.Tensor]]:
    logits = model(torch.arange(2, 30).view(2, 14)).logits
    loss = logits.square().mean()
    return logits.detach(), list(torch.autograd.grad(loss, [p for p in model.parameters() if p.requires_grad]))


def test_same_output_and_gradients_as_peft(tiny: Path) -> None:
    model = lora(tiny)
    logits, gradients = loss_and_gradients(model)
    with fused_lora(model):
        assert "forward" in vars(model.get_base_model().model.layers[0].self_attn.q_proj)
        fused_logits, fused_gradients = loss_and_gradients(model)
    torch.testing.assert_close(fused_logits, logits, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(fused_gradients, gradients, rtol=1e-4, atol=1e-6)
    assert not any("forward" in vars(module) for module in model.modules())


def test_dropout_acts_in_training_and_keeps_the_mean(tiny: Path) -> None:
    model = lora(tiny, lora_dropout=0.3)
    layer = model.get_base_model().model.layers[0].self_attn.q_proj
    x = torch.randn(3, 64)
    with torch.no_grad(), fused_lora(model):
        draws = torch.stack([layer(x) for _ in range(3000)])
        model.eval()
        expected = layer(x)
    assert draws.std(0).min() > 0
    torch.testing.assert_close(draws.mean(0), expected, rtol=0.1, atol=0.05)


@pytest.mark.parametrize("options", [{"use_dora": True}, {"lora_bias": True}])
def test_other_layers_stay_pefts(tiny: Path, options: dict[str, Any]) -> None:
    model = lora(tiny, **options)
    with fused_lora(model):
        assert not any("forward" in vars(module) for module in model.modules())
