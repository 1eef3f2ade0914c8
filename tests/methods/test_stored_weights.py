"""Methods that read a backbone's weights: transposed ones are turned, quantised ones refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from peft import get_peft_model
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel

from hiplora.errors import UserError
from hiplora.methods.base import Setup
from hiplora.spectral import load_or_compute
from tests.training.worker import OPTIONS, SETUP
from tests.tuner.helpers import make_llama

CONV1D = ("attn.c_attn", "attn.c_proj", "c_fc")


def make_gpt2() -> GPT2LMHeadModel:
    torch.manual_seed(0)
    return GPT2LMHeadModel(GPT2Config(vocab_size=53, n_embd=16, n_layer=2, n_head=2, n_positions=32)).eval()


def setup() -> Setup:
    return replace(SETUP, targets=CONV1D)


def perturbed(model: Any) -> Any:
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.requires_grad and "lora_" in name:
                parameter += 0.1 * torch.randn_like(parameter)
    return model.eval()


@pytest.mark.parametrize("name", ["lora", "dora", "pissa"])
def test_updates_of_conv1d_are_out_by_in_and_what_the_model_computes(name: str) -> None:
    method = OPTIONS[name]
    model = method.attach(make_gpt2(), setup=setup())
    started = method.updates(model)
    assert all(float(update.dense().norm()) < 1e-4 for update in started.values())
    perturbed(model)
    expected = model(torch.arange(12)[None]).logits
    backbone = make_gpt2()
    with torch.no_grad():
        for module, update in method.updates(model).items():
            backbone.get_submodule(module).get_parameter("weight").add_(update.dense().mT)
    torch.testing.assert_close(backbone(torch.arange(12)[None]).logits, expected, rtol=1e-4, atol=1e-4)


def test_a_kept_start_of_pissa_is_taken_out_of_conv1d_as_peft_does() -> None:
    method = OPTIONS["pissa"]
    expected = get_peft_model(make_gpt2(), method.peft_config(setup=setup())).state_dict()
    model = method.attach(make_gpt2(), setup=setup())
    method.load_state(model, method.state(model))
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(tensor, expected[name], rtol=1e-5, atol=1e-6)


class Packed(nn.Linear):
    """As bitsandbytes' layers: an nn.Linear whose weight holds codes."""

    def __init__(self, like: nn.Linear) -> None:
        super().__init__(like.in_features, like.out_features, bias=False)
        self.weight = nn.Parameter(torch.zeros_like(self.weight, dtype=torch.int8), requires_grad=False)


@pytest.mark.parametrize("name", ["hip", "pissa", "dora"])
def test_a_quantised_backbone_is_refused_in_one_sentence(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = make_llama()
    attention: Any = model.model.layers[0].self_attn
    attention.q_proj = Packed(attention.q_proj)
    with pytest.raises(UserError, match=r"self_attn\.q_proj is quantised \(int8\); give the backbone in fp32"):
        OPTIONS[name].attach(model, setup=SETUP)


def test_the_cache_computes_no_directions_of_codes() -> None:
    for dtype in (torch.int8, torch.uint8, torch.float8_e4m3fn):
        with pytest.raises(UserError, match=r"q_proj is quantised \("):
            load_or_compute({"q_proj": torch.zeros(8, 8, dtype=dtype)}, k_max=2)
