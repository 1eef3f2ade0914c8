"""Every operation that PEFT offers on one adapter of a tuner: right, or refused in words."""

from __future__ import annotations

import copy
import pickle

import peft
import pytest
import torch
from peft import PeftModel, get_peft_model, inject_adapter_in_model
from peft.helpers import rescale_adapter_scale
from peft.tuners.lora.intruders import reduce_intruder_dimension
from peft.utils.hotswap import hotswap_adapter, prepare_model_for_compiled_hotswap

from hiplora.errors import UserError
from hiplora.tuner import HipLoraConfig
from tests.tuner.helpers import K, R, config, folded, layers, logits, make_llama, perturb, trained


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("safe", [False, True])
def test_merge_and_unmerge_restore_every_bit(ids, dtype, safe):
    model = trained(make_llama().to(dtype))
    before = copy.deepcopy(dict(model.state_dict()))
    adapted = logits(model, ids)
    model.merge_adapter(safe_merge=safe)
    tolerance = 1e-4 if dtype == torch.float32 else 0.3
    torch.testing.assert_close(logits(model, ids), adapted, rtol=tolerance, atol=tolerance)
    for name, update in model.updates().items():
        key = f"base_model.model.{name}.base_layer.weight"
        expected = (before[key].double() + update.dense().double()).to(dtype)
        torch.testing.assert_close(
            model.state_dict()[key], expected, rtol=2**-8 if dtype != torch.float32 else 1e-5, atol=1e-5
        )
    with model.disable_adapter():  # PEFT unmerges for this
        assert torch.equal(logits(model, ids), logits(make_llama().to(dtype), ids))
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert torch.equal(logits(model, ids), adapted)


@pytest.mark.parametrize("safe", [False, True])
def test_merge_and_unload_and_unload(ids, safe):
    model = trained(make_llama())
    adapted = logits(model, ids)
    plain = copy.deepcopy(model).unload()
    assert torch.equal(logits(plain, ids), logits(make_llama(), ids))
    merged = model.merge_and_unload(safe_merge=safe)
    assert not layers(merged)
    torch.testing.assert_close(logits(merged, ids), adapted, rtol=1e-4, atol=1e-4)


def test_safe_merge_refuses_nan_and_leaves_the_weight():
    model = trained(make_llama())
    layer = layers(model)[0]
    before = layer.base_weight.clone()
    layer.lora_phi["default"].data[0] = float("nan")
    with pytest.raises(ValueError, match="NaNs detected"):
        model.merge_adapter(safe_merge=True)
    assert torch.equal(layer.base_weight, before)
    assert not layer.merged


@pytest.mark.parametrize("clone", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))], ids=["copy", "pickle"])
def test_copies_behave_alike_and_are_independent(ids, clone):
    model = trained(make_llama(), options=config(parameterization="relative"))
    adapted = logits(model, ids)
    twin = clone(model)
    assert torch.equal(logits(twin, ids), adapted)
    assert twin.stability_penalty().item() == model.stability_penalty().item()
    perturb(twin, seed=99)
    assert torch.equal(logits(model, ids), adapted)
    twin.retract()


def test_scale_helpers_scale_the_whole_update(ids):
    model = trained(make_llama())
    half = {name: update.scaled(0.5) for name, update in model.updates().items()}
    reference = logits(folded(make_llama(), half), ids)
    with rescale_adapter_scale(model, 0.5):
        torch.testing.assert_close(logits(model, ids), reference, rtol=1e-4, atol=1e-4)
    for layer in layers(model):
        layer.set_scale("default", 0.5)
    torch.testing.assert_close(logits(model, ids), reference, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(logits(folded(make_llama(), model.updates()), ids), reference, rtol=1e-4, atol=1e-4)


def test_gradient_checkpointing_gives_the_same_gradients(ids):
    gradients = []
    for checkpointing in (False, True):
        model = trained(make_llama(), options=config(lora_dropout=0.2)).train()
        if checkpointing:
            model.gradient_checkpointing_enable()
            model.enable_input_require_grads()
        torch.manual_seed(11)
        model(ids, labels=ids, use_cache=False).loss.backward()
        gradients.append({n: p.grad for n, p in model.named_parameters() if p.grad is not None})
    plain, checkpointed = gradients
    assert plain.keys() <= checkpointed.keys()
    for name, gradient in plain.items():
        torch.testing.assert_close(checkpointed[name], gradient, rtol=1e-4, atol=1e-6)


def test_bf16_backbone_keeps_fp32_adapters_and_can_be_told_not_to(ids):
    model = trained(make_llama().bfloat16())
    assert {p.dtype for n, p in model.named_parameters() if "lora_" in n} == {torch.float32}
    reference = folded(make_llama().bfloat16(), model.updates())
    difference = logits(model, ids) - logits(reference, ids)
    assert difference.norm() < 0.05 * logits(reference, ids).norm()
    narrow = get_peft_model(make_llama().bfloat16(), config(), autocast_adapter_dtype=False)
    assert {p.dtype for n, p in narrow.named_parameters() if "lora_" in n} == {torch.bfloat16}
    narrow(ids, labels=ids).loss.backward()
    narrow.retract()


def test_training_under_autocast(ids):
    model = trained(make_llama()).train()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = model(ids, labels=ids).loss
    loss.backward()
    assert all(p.grad.dtype == torch.float32 for p in model.parameters() if p.requires_grad)


def test_convert_to_lora_keeps_phi(ids):
    model = trained(make_llama())
    lora_config, tensors = peft.convert_to_lora(model, rank=K + R)
    stock = get_peft_model(make_llama(), lora_config)
    peft.set_peft_model_state_dict(stock, tensors)
    torch.testing.assert_close(logits(stock.eval(), ids), logits(model, ids), rtol=1e-3, atol=1e-3)


def test_injection_without_a_peft_model(ids):
    model = inject_adapter_in_model(config(), make_llama())
    saved = peft.get_peft_model_state_dict(trained(make_llama()))
    peft.set_peft_model_state_dict(model, saved)
    assert torch.equal(logits(model, ids), logits(trained(make_llama()), ids))


def test_compiled_hotswap_preparation_keeps_the_update(ids):
    model = trained(make_llama())
    adapted = logits(model, ids)
    prepare_model_for_compiled_hotswap(model, target_rank=R + 2)
    torch.testing.assert_close(logits(model, ids), adapted, rtol=1e-5, atol=1e-5)


def test_what_would_lose_phi_is_refused(ids, tmp_path):
    model = trained(make_llama())
    model.save_pretrained(tmp_path / "adapter")
    with pytest.raises(UserError, match="path_initial_model_for_weight_conversion"):
        model.save_pretrained(tmp_path / "out", path_initial_model_for_weight_conversion=str(tmp_path / "adapter"))
    with pytest.raises(UserError, match="export_lora"):
        model.subtract_mutated_init({}, "default")
    with pytest.raises(ValueError, match="HIPLORA"):
        hotswap_adapter(model, str(tmp_path / "adapter"), "default")
    with pytest.raises(ValueError, match="not using LoRA"):
        reduce_intruder_dimension(model)
    with pytest.raises(ValueError, match="different peft types"):
        model.add_adapter("stock", peft.LoraConfig(target_modules=["q_proj"]))
    with pytest.raises(ValueError, match="HIPLORA"):
        get_peft_model(make_llama(), config(), mixed=True)
    stock = get_peft_model(make_llama(), peft.LoraConfig(target_modules=["q_proj"]))
    stock.base_model.peft_config["hip"] = config(target_modules=["q_proj"])
    with pytest.raises(ValueError, match="variant"):
        stock.base_model.inject_adapter(stock.base_model.model, "hip")
    with pytest.raises(UserError, match="no singular basis"):
        logits(peft.LoraModel(make_llama(), config(), "default"), ids)


def test_status_and_parameter_counts():
    model = trained(make_llama())
    status = model.get_model_status()
    assert (status.peft_types, status.num_adapter_layers) == ({"default": "HIPLORA"}, 8)
    per_block = sum(K + R * (24 + out) for out in (24, 12, 12, 24))
    assert model.get_nb_trainable_parameters()[0] == 2 * per_block
    assert isinstance(model, PeftModel)
    assert isinstance(model.peft_config["default"], HipLoraConfig)
