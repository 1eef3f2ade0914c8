"""Tiny models with a HiP-LoRA adapter that looks trained, and its layers."""

from __future__ import annotations

import torch
from peft import get_peft_model
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from hiplora.tuner import HipLinear, HipLoraConfig

K, R = 6, 3
TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj"]


def make_llama(seed: int = 0) -> LlamaForCausalLM:
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=53,
        hidden_size=24,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
        initializer_range=0.3,
    )
    return LlamaForCausalLM(config).eval()


class MLP(nn.Module):
    """Not a transformer; its matrices have biases and are smaller than k_max."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(7, 20)
        self.second = nn.Linear(20, 9)
        self.head = nn.Linear(9, 4)
        self.table = nn.Embedding(5, 7)
        self.attention = nn.MultiheadAttention(8, 2)

    def forward(self, x):
        return self.head(torch.relu(self.second(torch.relu(self.first(x)))))


def make_mlp(seed: int = 3) -> MLP:
    torch.manual_seed(seed)
    return MLP()


def config(**changes) -> HipLoraConfig:
    defaults = {"r": R, "k": K, "target_modules": TARGETS, "lora_dropout": 0.0, "task_type": "CAUSAL_LM"}
    return HipLoraConfig(**(defaults | changes))


def mlp_config(**changes) -> HipLoraConfig:
    return config(**({"target_modules": ["first", "second"], "task_type": None, "k": 4} | changes))


@torch.no_grad()
def perturb(peft_model, adapter: str = "default", seed: int = 7) -> None:
    """Random φ, A and B, retracted: what training leaves, non-zero everywhere."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in peft_model.named_parameters():
        if ".lora_" in name and f".{adapter}" in name:
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
    for module in peft_model.modules():
        if hasattr(module, "lora_phi") and adapter in module.lora_A:
            module.retract(adapter)


def trained(model, *, seed: int = 7, adapter: str = "default", options: HipLoraConfig | None = None):
    peft_model = get_peft_model(model, options or config(), adapter_name=adapter)
    perturb(peft_model, adapter, seed)
    return peft_model.eval()


def logits(model, ids) -> torch.Tensor:
    with torch.no_grad():
        return model(ids).logits.float()


def folded(model, updates):
    """The backbone with every ΔW added to its weight, in fp64: the reference for any forward pass."""
    model = model.double()
    with torch.no_grad():
        for name, update in updates.items():
            model.get_submodule(name).weight += update.to(torch.float64).dense()
    return model


def layers(model):
    return [m for m in model.modules() if isinstance(m, HipLinear)]
