"""Adapter folders for the tests of merging: the command on them, edited copies, what a model makes of them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from peft import AdaLoraConfig, LoraConfig
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

from hiplora import HipLoraConfig
from hiplora.merging.__main__ import main

TARGETS = ["q_proj", "v_proj"]
IDS = torch.arange(2, 14)[None]
OPTIONS = {
    "plain": {"r": 4, "lora_alpha": 8},
    "patterns": {"r": 2, "rank_pattern": {"v_proj": 3}, "alpha_pattern": {r"layers.1.*q_proj": 5}, "lora_alpha": 4},
    "rslora": {"r": 4, "lora_alpha": 4, "use_rslora": True},
    "dora": {"r": 2, "lora_alpha": 4, "use_dora": True},
}
KINDS: dict[str, Any] = {
    "lora": LoraConfig(r=2, target_modules=TARGETS, task_type="CAUSAL_LM", rank_pattern={"v_proj": 3}),
    "dora": LoraConfig(r=2, target_modules=TARGETS, task_type="CAUSAL_LM", use_dora=True),
    "adalora": AdaLoraConfig(init_r=3, target_r=2, total_step=9, target_modules=TARGETS, task_type="CAUSAL_LM"),
    "hip": HipLoraConfig(r=2, k=3, target_modules=TARGETS, task_type="CAUSAL_LM"),
    "hip-basis": HipLoraConfig(r=2, k=3, target_modules=TARGETS, task_type="CAUSAL_LM", save_basis=True),
    "hip-relative": HipLoraConfig(r=2, k=3, target_modules=TARGETS, parameterization="relative"),
    "proj": HipLoraConfig(r=2, k=3, target_modules=TARGETS, task_type="CAUSAL_LM", principal=False),
}


def run(*arguments: object) -> int:
    return main([str(a) for a in arguments])


def load(folder: Path, **options: Any) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, **options).eval()


@torch.no_grad()
def logits(model: Any) -> Tensor:
    return model.eval()(IDS).logits


def targets(model: nn.Module) -> dict[str, Tensor]:
    return {n.removesuffix(".weight"): p.detach() for n, p in model.named_parameters() if n.split(".")[-2] in TARGETS}


def perturbed(model: Any, seed: int = 1) -> Any:
    torch.manual_seed(seed)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and "magnitude" not in name:
            parameter.data += 0.1 * torch.randn_like(parameter)
    return model


def weights(folder: Path) -> Path:
    return folder / "adapter_model.safetensors"


def edit(path: Path, **fields: Any) -> None:
    """Replace some fields of a configuration; ``...`` takes a field out."""
    raw = json.loads(path.read_text()) | fields
    path.write_text(json.dumps({key: value for key, value in raw.items() if value is not ...}))


def edited(folder: Path, out: Path, **fields: Any) -> Path:
    """A copy of an adapter folder with some configuration fields replaced."""
    shutil.copytree(folder, out)
    edit(out / "adapter_config.json", **fields)
    return out


def only(folder: Path, out: Path, module: str) -> Path:
    """A copy of an adapter folder with the factors of one kind of module."""
    edited(folder, out, target_modules=[module])
    tensors = load_file(folder / "adapter_model.safetensors")
    save_file({k: v for k, v in tensors.items() if module in k}, out / "adapter_model.safetensors")
    return out


def assert_close(updates, expected: dict[str, Tensor], tolerance: float = 1e-6) -> None:
    assert set(updates) == set(expected)
    for name, delta in expected.items():
        torch.testing.assert_close(updates[name].dense(), delta, rtol=1e-4, atol=tolerance)


def assert_same(left: Any, right: Any) -> None:
    assert set(left) == set(right)
    for name, update in left.items():
        torch.testing.assert_close(update.dense(), right[name].dense())
