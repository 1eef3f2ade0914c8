"""Backbones and adapter folders that the tests of merging read: copy one before changing anything."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor

from tests.merging.folders import KINDS, OPTIONS, TARGETS, load, perturbed, targets
from tests.tiny import tiny_llama_folder
from tests.tuner.helpers import make_llama


@pytest.fixture(scope="session")
def backbone(tmp_path_factory) -> Path:
    """The model that ``adapters`` adapt."""
    return tiny_llama_folder(tmp_path_factory.mktemp("backbone"))


@pytest.fixture(scope="session")
def adapters(backbone, tmp_path_factory) -> dict[str, tuple[Path, dict[str, Tensor]]]:
    """Folders of stock PEFT adapters, and what each one adds to every weight according to PEFT."""
    made = {}
    for seed, (kind, options) in enumerate(OPTIONS.items()):
        torch.manual_seed(seed)
        model = get_peft_model(load(backbone), LoraConfig(target_modules=TARGETS, task_type="CAUSAL_LM", **options))
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.data += 0.1 * torch.randn_like(parameter)
        folder = tmp_path_factory.mktemp(kind)
        model.save_pretrained(folder)
        before, after = targets(load(backbone)), targets(model.merge_and_unload())
        made[kind] = folder, {name: after[name] - before[name] for name in before}
    return made


@pytest.fixture(scope="session")
def base(tmp_path_factory) -> Path:
    """The model that ``folders`` adapt."""
    folder = tmp_path_factory.mktemp("base")
    make_llama().save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def folders(base, tmp_path_factory) -> dict[str, Path]:
    """A folder of every kind of adapter, which looks trained."""
    made = {}
    for kind, config in KINDS.items():
        made[kind] = tmp_path_factory.mktemp(kind)
        perturbed(get_peft_model(load(base), config)).save_pretrained(made[kind])
    return made
