"""The update that is read from an adapter folder, as PEFT or the model computes it; where folders are looked for."""

from __future__ import annotations

import shutil

import huggingface_hub
import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import AutoModelForCausalLM

from hiplora import HipLoraConfig
from hiplora.adapters.reading import read_adapter
from hiplora.errors import UserError
from hiplora.merging import merge
from hiplora.updates import Dense, LowRank
from tests.merging.folders import (
    OPTIONS,
    TARGETS,
    assert_close,
    assert_same,
    edited,
    load,
)


@pytest.mark.parametrize("kind", OPTIONS)
def test_reading_gives_what_peft_adds_to_the_weights(kind, adapters, backbone):
    folder, expected = adapters[kind]
    read = read_adapter(str(folder), backbone=backbone)
    assert all(isinstance(u, Dense if kind == "dora" else LowRank) for u in read.updates.values())
    assert_close(read.updates, expected)
    assert read.task_type == "CAUSAL_LM"


@pytest.mark.parametrize(("principal", "save_basis"), [(True, True), (True, False), (False, True)])
def test_hip_lora_folders_give_what_the_model_gives(principal, save_basis, adapters, backbone, tmp_path, monkeypatch):

    torch.manual_seed(0)
    options = {"r": 2, "k": 3, "k_max": 4, "save_basis": save_basis, "svd_cache_dir": str(tmp_path / "cache")}
    config = HipLoraConfig(target_modules=TARGETS, task_type="CAUSAL_LM", principal=principal, **options)
    model = get_peft_model(load(backbone), config)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.data += 0.1 * torch.randn_like(parameter)
    model.save_pretrained(tmp_path / "hip")
    held = model.base_model.updates()
    # The backbone as a whole need not fit into memory: only the adapted matrices are read.
    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", None)
    read = read_adapter(str(tmp_path / "hip"), backbone=backbone).updates
    assert_close(read, {name: update.dense() for name, update in held.items()})
    plain = read_adapter(str(adapters["plain"][0])).updates
    if principal:
        added = merge([read, read], "addition").updates
        assert {update.rank for update in added.values()} == {3 + 2 * 2}  # the basis is known to be one
    # Both depend on the factorisation, not on the update alone.
    for operator, calibration in (("core_space", "none"), ("addition", "pico")):
        left, right = (merge([u, plain], operator, calibration=calibration).updates for u in (read, held))
        assert_close(left, {name: update.dense() for name, update in right.items()}, 1e-4)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_an_adapter_trained_in_half_precision_finds_its_directions_in_weights_stored_in_fp32(dtype, backbone, tmp_path):
    torch.manual_seed(0)
    base = load(backbone)
    for layer in base.model.layers:  # nearly equal singular values, so that rounding turns the directions
        weight = layer.self_attn.q_proj.weight
        U, _, Vh = torch.linalg.svd(weight.detach(), full_matrices=False)
        weight.data = U * torch.linspace(1.001, 1, U.shape[1]) @ Vh
    base.save_pretrained(tmp_path / "backbone")
    options = {"r": 2, "k": 3, "k_max": 4, "svd_cache_dir": str(tmp_path / "cache"), "task_type": "CAUSAL_LM"}
    trained = AutoModelForCausalLM.from_pretrained(tmp_path / "backbone", dtype=dtype)
    model = get_peft_model(trained, HipLoraConfig(target_modules=["q_proj"], **options))
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.data += 0.1 * torch.randn_like(parameter)
    model.save_pretrained(tmp_path / "hip")
    read = read_adapter(str(tmp_path / "hip"), backbone=tmp_path / "backbone").updates
    assert_close(read, {name: update.dense() for name, update in model.base_model.updates().items()})
    with pytest.raises(UserError, match="trained on another backbone"):
        read_adapter(str(tmp_path / "hip"), backbone=backbone)


def test_the_backbones_own_weight_beside_an_adapted_head_is_no_obstacle(backbone, tmp_path):
    torch.manual_seed(0)
    base = load(backbone)
    base.config.tie_word_embeddings = False
    base.lm_head.weight = nn.Parameter(base.lm_head.weight.detach().clone())
    backbone = tmp_path / "untied"
    base.save_pretrained(backbone)
    model = get_peft_model(base, LoraConfig(r=2, target_modules=["q_proj", "lm_head"], task_type="CAUSAL_LM"))
    model.peft_config["default"].base_model_name_or_path = "owner/name"  # not here, so that --backbone is needed
    model.save_pretrained(tmp_path / "head", save_embedding_layers=True)
    key = "base_model.model.lm_head.base_layer.weight"
    path = tmp_path / "head" / "adapter_model.safetensors"
    tensors = load_file(path)
    assert key in tensors
    with pytest.raises(UserError, match="add --backbone DIR"):
        read_adapter(str(tmp_path / "head"))
    assert "lm_head" in read_adapter(str(tmp_path / "head"), backbone=backbone).updates
    save_file(tensors | {key: tensors[key] + 1}, path)
    with pytest.raises(UserError, match="not the backbone's"):
        read_adapter(str(tmp_path / "head"), backbone=backbone)


def test_adapters_saved_on_another_device_are_read(adapters, tmp_path, monkeypatch):
    """PEFT's older adapters are pickles that name the device they were saved on."""
    folder = edited(adapters["plain"][0], tmp_path / "bin")
    tensors = load_file(folder / "adapter_model.safetensors")
    (folder / "adapter_model.safetensors").unlink()
    with monkeypatch.context() as patch:
        patch.setattr(torch.serialization, "location_tag", lambda storage: "cuda:0")
        torch.save(tensors, folder / "adapter_model.bin")
    assert_close(read_adapter(str(folder)).updates, adapters["plain"][1])


def test_revisions_and_folders_of_the_hub(folders, tmp_path, monkeypatch):
    asked = []

    def download(name: str, *, revision: str | None, allow_patterns: list[str]) -> str:
        asked.append((name, revision, *allow_patterns))
        return str(tmp_path / "snapshot")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    (tmp_path / "snapshot").mkdir()
    edited(folders["lora"], tmp_path / "snapshot" / "a" / "b")
    for path in (tmp_path / "snapshot" / "a" / "b").iterdir():
        shutil.copy(path, tmp_path / "snapshot")
    expected = {
        "owner/name": ("owner/name", None, "adapter_*"),
        "owner/name@v1": ("owner/name", "v1", "adapter_*"),
        "owner/name/a/b": ("owner/name", None, "a/b/adapter_*"),
        "owner/name@v1/a/b": ("owner/name", "v1", "a/b/adapter_*"),
        "owner/name@refs/pr/3": ("owner/name", "refs/pr/3", "adapter_*"),
        "owner/name@refs/pr/3/a/b": ("owner/name", "refs/pr/3", "a/b/adapter_*"),
    }
    for source, call in expected.items():
        assert_same(read_adapter(source).updates, read_adapter(str(folders["lora"])).updates)
        assert asked[-1] == call
    for source in ("name", "owner/name@", "/tmp/owner/nothing", "../owner/name@v1"):
        with pytest.raises(UserError, match="is neither a folder nor"):
            read_adapter(source)
