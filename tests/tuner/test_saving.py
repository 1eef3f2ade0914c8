"""What is on disk, and that loading gives the same model or a refusal."""

from __future__ import annotations

import json
from dataclasses import replace

import peft
import pytest
import torch
from packaging.version import parse
from peft import (
    AutoPeftModelForCausalLM,
    PeftConfig,
    PeftModel,
    get_peft_model,
    inject_adapter_in_model,
    set_peft_model_state_dict,
)
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM
from transformers.integrations.peft import MIN_PEFT_VERSION

from hiplora.errors import UserError
from hiplora.tuner import HipLinear, HipLoraConfig
from tests.tuner.helpers import K, R, config, logits, make_llama, make_mlp, mlp_config, perturb, trained


def save(tmp_path, **changes):
    model = trained(make_llama(), options=config(**changes))
    model.save_pretrained(tmp_path / "adapter")
    return model, tmp_path / "adapter"


@pytest.mark.parametrize("low_memory", [False, True])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"parameterization": "relative", "save_basis": True},
        {"principal": False},
        {"principal": False, "basis": "random", "basis_seed": 3},
        {"principal": False, "basis": "random", "side": "inside", "save_basis": True},
        {"modules_to_save": ["lm_head"]},
        {"trainable_token_indices": [1, 5]},
        {"rank_pattern": {"q_proj": 5}},
    ],
    ids=["hip", "relative-with-basis", "proj", "random", "inside-basis", "modules-to-save", "tokens", "rank-pattern"],
)
def test_round_trip_is_exact(tmp_path, ids, changes, low_memory):
    model, folder = save(tmp_path, **changes)
    if "modules_to_save" in changes:
        model.base_model.model.lm_head.modules_to_save["default"].weight.data *= 1.1
        model.save_pretrained(folder)
    again = PeftModel.from_pretrained(make_llama(), folder, low_cpu_mem_usage=low_memory)
    assert torch.equal(logits(again, ids), logits(model, ids))
    assert again.peft_config["default"].svd_options == model.peft_config["default"].svd_options
    assert not any(p.requires_grad for p in again.parameters())


@pytest.mark.parametrize("low_memory", [False, True])
def test_bf16_backbone_loads_fp32_adapters_without_rounding(tmp_path, ids, low_memory):
    model = trained(make_llama().bfloat16())
    model.save_pretrained(tmp_path)
    again = PeftModel.from_pretrained(make_llama().bfloat16(), tmp_path, low_cpu_mem_usage=low_memory)
    ours, theirs = model.state_dict(), again.state_dict()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)


def test_the_files_hold_factors_sigma_and_identity(tmp_path):
    model, folder = save(tmp_path)
    names = {p.name for p in folder.iterdir()}
    assert {"adapter_config.json", "adapter_model.safetensors"} <= names
    options = json.loads((folder / "adapter_config.json").read_text())
    assert options["peft_type"] == "HIPLORA"
    assert (options["k"], options["r"], options["lora_alpha"]) == (K, R, 2 * R)
    assert options["svd_key"] == model.peft_config["default"].svd_key
    assert len(options["svd_key"]) >= 8
    assert "svd_cache_dir" not in options
    tensors = load_file(folder / "adapter_model.safetensors")
    name = "base_model.model.model.layers.0.self_attn.k_proj"
    shapes = {k.removeprefix(f"{name}."): tuple(t.shape) for k, t in tensors.items() if k.startswith(name)}
    assert shapes == {
        "lora_A.weight": (R, 24),
        "lora_B.weight": (12, R),
        "lora_phi": (K,),
        "lora_sigma": (K,),
        "lora_sketch": (2, K),
    }
    assert not any("lora_basis" in key for key in model.state_dict())


def test_auto_class_finds_backbone_and_method(tmp_path, ids):
    make_llama().save_pretrained(tmp_path / "backbone")
    backbone = AutoModelForCausalLM.from_pretrained(tmp_path / "backbone")
    model = trained(backbone)
    model.save_pretrained(tmp_path / "adapter")
    again = AutoPeftModelForCausalLM.from_pretrained(tmp_path / "adapter")
    assert torch.equal(logits(again, ids), logits(model, ids))


@pytest.mark.parametrize("parameterization", ["absolute", "relative"])
def test_what_transformers_loads_itself_is_refused_and_what_peft_loads_is_not(tmp_path, ids, parameterization):
    make_llama().save_pretrained(tmp_path / "backbone")
    backbone = AutoModelForCausalLM.from_pretrained(tmp_path / "backbone")
    model = trained(backbone, options=config(parameterization=parameterization))
    folder, expected, plain = tmp_path / "adapter", logits(model, ids), make_llama()
    model.save_pretrained(folder)
    for load in (lambda: plain.load_adapter(str(folder)), lambda: AutoModelForCausalLM.from_pretrained(folder)):
        with pytest.raises(UserError, match=r"call peft\.PeftModel\.from_pretrained"):
            load()
    assert not any(isinstance(module, HipLinear) for module in plain.modules())

    read = PeftConfig.from_pretrained(folder)
    assert torch.equal(logits(PeftModel.from_pretrained(make_llama(), folder, config=read), ids), expected)
    injected = inject_adapter_in_model(HipLoraConfig.from_pretrained(folder), make_llama())
    set_peft_model_state_dict(injected, load_file(folder / "adapter_model.safetensors"))
    assert torch.equal(logits(injected, ids), expected)
    get_peft_model(make_llama(), PeftConfig.from_pretrained(folder))


@pytest.mark.skipif(
    parse(peft.__version__) < parse(MIN_PEFT_VERSION), reason="add_adapter of transformers refuses all of this PEFT"
)
def test_transformers_adds_a_new_adapter(tmp_path):
    used = save(tmp_path)[0].peft_config["default"]
    for again in (used, replace(used, r=2)):
        make_llama().add_adapter(again)


def test_loading_goes_on_training_where_it_stopped(tmp_path, ids):
    model, folder = save(tmp_path)
    again = PeftModel.from_pretrained(make_llama(), folder, is_trainable=True)
    assert [p.shape for p in again.principal_parameters()] == [(K,)] * 8
    for candidate in (model, again):
        (candidate(ids, labels=ids).loss + candidate.stability_penalty()).backward()
    for ours, theirs in zip(model.principal_parameters(), again.principal_parameters(), strict=True):
        assert torch.equal(ours.grad, theirs.grad)


def test_second_adapter_and_reload_into_the_first(tmp_path, ids):
    model, folder = save(tmp_path)
    expected = logits(model, ids)
    other = trained(make_llama(), seed=50)
    other.load_adapter(folder, "second")
    other.set_adapter("second")
    assert torch.equal(logits(other, ids), expected)
    other.load_adapter(folder, "default")
    other.set_adapter("default")
    assert torch.equal(logits(other, ids), expected)


def test_saved_basis_needs_no_svd(tmp_path, ids, monkeypatch):
    model, folder = save(tmp_path, save_basis=True)
    monkeypatch.setattr("hiplora.tuner.basis.load_or_compute", None)
    again = PeftModel.from_pretrained(make_llama(), folder)
    assert torch.equal(logits(again, ids), logits(model, ids))
    assert all(m.basis("default").size == K for m in again.modules() if isinstance(m, HipLinear))


def test_adapters_with_and_without_their_own_directions_load_in_either_order(tmp_path, ids):
    """The directions of one folder have other signs than those computed here, as another machine's may have."""
    plain, local = save(tmp_path / "local")
    turned = get_peft_model(make_llama(), config(save_basis=True))
    for layer in turned.modules():
        if isinstance(layer, HipLinear):
            basis = layer.basis("default")
            basis.U.neg_()
            basis.V.neg_()
    perturb(turned, seed=9)
    turned.save_pretrained(tmp_path / "carrying")
    expected = {local: logits(plain, ids), tmp_path / "carrying": logits(turned.eval(), ids)}
    for order in (list(expected), list(expected)[::-1]):
        model = PeftModel.from_pretrained(make_llama(), order[0])
        model.load_adapter(order[1], "second")
        model.set_adapter("second")
        assert torch.equal(logits(model, ids), expected[order[1]])


@pytest.mark.parametrize("save_basis", [False, True])
def test_another_backbone_is_refused(tmp_path, save_basis):
    _, folder = save(tmp_path, save_basis=save_basis)
    with pytest.raises(UserError, match=r"another backbone.*save_basis=True\.$") as caught:
        PeftModel.from_pretrained(make_llama(seed=1), folder)
    assert str(caught.value).count(". ") == 0  # one sentence
    other = trained(make_llama(seed=1))
    with pytest.raises(UserError, match="another backbone"):
        other.load_adapter(folder, "second")


def test_a_configuration_from_disk_starts_a_new_adapter_on_another_backbone(tmp_path, ids):
    _, folder = save(tmp_path, save_basis=True)
    model = get_peft_model(make_llama(seed=1), HipLoraConfig.from_pretrained(folder))
    torch.testing.assert_close(logits(model, ids), logits(make_llama(seed=1), ids), rtol=0, atol=0)
    config().save_pretrained(tmp_path / "alone")
    get_peft_model(make_llama(), HipLoraConfig.from_pretrained(tmp_path / "alone"))


def test_backbone_in_another_precision_is_accepted_while_its_directions_agree(tmp_path, ids):
    model = trained(make_llama().bfloat16())
    model.save_pretrained(tmp_path)
    wider = PeftModel.from_pretrained(make_llama().bfloat16().float(), tmp_path)  # the same values
    assert wider.peft_config["default"].svd_key == model.peft_config["default"].svd_key


@pytest.mark.parametrize("part", ["lora_phi", "lora_sketch", "lora_A.weight"])
def test_an_incomplete_file_is_refused(tmp_path, part):
    _, folder = save(tmp_path)
    file = folder / "adapter_model.safetensors"
    tensors = load_file(file)
    name = f"base_model.model.model.layers.1.self_attn.v_proj.{part}"
    del tensors[name]
    save_file(tensors, file)
    with pytest.raises(UserError, match="not complete"):
        PeftModel.from_pretrained(make_llama(), folder)


def test_delta_is_never_read_as_phi(tmp_path):
    _, folder = save(tmp_path, parameterization="relative")
    with safe_open(folder / "adapter_model.safetensors", framework="pt") as file:
        assert sum(key.endswith("lora_delta") for key in file.keys()) == 8  # noqa: SIM118
    with pytest.raises(UserError, match="lora_phi"):
        trained(make_llama()).load_adapter(folder, "default")
    with pytest.raises(UserError, match="k=4"):
        trained(make_llama(), options=config(k=4, parameterization="relative")).load_adapter(folder, "default")


@pytest.mark.parametrize("parameterization", ["absolute", "relative"])
@pytest.mark.parametrize("held", [{"principal": False}, {"target_modules": ["q_proj"]}], ids=["proj", "fewer targets"])
def test_gains_that_have_no_place_are_refused(tmp_path, ids, held, parameterization):
    _, folder = save(tmp_path, parameterization=parameterization)
    model = trained(make_llama(), options=config(**{"parameterization": parameterization} | held))
    before = logits(model, ids)
    with pytest.raises(UserError, match=r"lora_(phi|delta), for which the model's adapter has no place; load it under"):
        model.load_adapter(folder, "default")
    assert torch.equal(logits(model, ids), before)


def test_any_model_round_trips(tmp_path):
    x = torch.randn(3, 7)
    model = get_peft_model(make_mlp(), mlp_config(bias="all", modules_to_save=["head"]))
    perturb(model)
    model.base_model.model.second.bias.data += 1
    model.save_pretrained(tmp_path)
    again = PeftModel.from_pretrained(make_mlp(), tmp_path)
    assert torch.equal(again(x), model(x))
