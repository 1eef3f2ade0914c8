"""Several adapters of one model: chosen, added up, mixed in a batch, merged and summed by weight."""

from __future__ import annotations

import copy

import pytest
import torch

from hiplora import HipLoraCallback
from hiplora.errors import UserError
from tests.tuner.helpers import K, R, config, folded, layers, logits, make_llama, perturb, trained


def two_adapters(ids, **second):
    """A model with adapters a and b, and each one's logits alone."""
    model = trained(make_llama(), adapter="a")
    model.add_adapter("b", config(**second))
    perturb(model, "b", seed=8)
    outputs = {}
    for adapter in ("b", "a"):
        model.set_adapter(adapter)
        outputs[adapter] = logits(model, ids)
    return model, outputs


def belongs(name, adapter):
    return f".{adapter}." in f"{name}."


def test_set_disable_and_delete(ids):
    model, outputs = two_adapters(ids)
    backbone = logits(make_llama(), ids)
    assert (outputs["a"] - outputs["b"]).abs().max() > 0.1
    with model.disable_adapter():
        assert torch.equal(logits(model, ids), backbone)
    model.set_adapter("b")
    assert torch.equal(logits(model, ids), outputs["b"])
    trainable = [n for n, p in model.named_parameters() if p.requires_grad]
    assert trainable
    assert all(belongs(name, "b") for name in trainable)
    assert sum("lora_phi" in name for name in trainable) == 8
    model.delete_adapter("b")
    assert torch.equal(logits(model, ids), outputs["a"])
    assert not any(belongs(name, "b") for name in model.state_dict())
    assert all(set(layer.lora_basis) == {"a"} for layer in layers(model))


def test_adapters_of_a_layer_share_one_basis(ids, monkeypatch):
    model, _ = two_adapters(ids)
    monkeypatch.setattr("hiplora.tuner.basis.load_or_compute", None)  # a third one needs no SVD either
    model.add_adapter("c", config(k=2))
    for layer in layers(model):
        assert layer.lora_basis["a"] is layer.lora_basis["b"] is layer.lora_basis["c"]
    clone = copy.deepcopy(model)
    assert all(layer.lora_basis["a"] is layer.lora_basis["b"] for layer in layers(clone))


def test_several_active_adapters_add_up(ids):
    model, _ = two_adapters(ids)
    model.base_model.set_adapter(["a", "b"])
    reference = folded(folded(make_llama(), model.updates("a")), model.updates("b"))
    torch.testing.assert_close(logits(model, ids), logits(reference, ids), rtol=1e-3, atol=1e-3)
    both = model.stability_penalty().item()
    alone = []
    for adapter in ("a", "b"):
        model.set_adapter(adapter)
        alone.append(model.stability_penalty().item())
    assert both == pytest.approx(sum(alone), rel=1e-5)


def test_the_callback_serves_adapters_without_a_budget_and_frozen_gains(ids):
    model, _ = two_adapters(ids, stability=0.0)
    model.base_model.set_adapter(["a", "b"])
    frozen, *others = model.principal_parameters()
    frozen.requires_grad_(False)
    HipLoraCallback().on_step_begin(None, None, None, model=model)
    found = [phi.grad for phi in others]
    model.zero_grad()
    model.stability_penalty().backward()
    assert [gradient is not None for gradient in found] == [True] * 7 + [False] * 8
    assert all(torch.equal(gradient, phi.grad) for gradient, phi in zip(found[:7], others, strict=False))
    assert frozen.grad is None


def test_mixed_batches(ids):
    model, outputs = two_adapters(ids)
    backbone = logits(make_llama(), ids)
    with torch.no_grad():
        mixed = model(ids, adapter_names=["b", "__base__"]).logits
        other = model(ids, adapter_names=["a", "b"]).logits
    torch.testing.assert_close(mixed, torch.stack([outputs["b"][0], backbone[1]]), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(other, torch.stack([outputs["a"][0], outputs["b"][1]]), rtol=1e-5, atol=1e-5)


def test_merging_two_adapters_and_taking_both_out(ids):
    model, _ = two_adapters(ids)
    backbone = logits(make_llama(), ids)
    reference = folded(folded(make_llama(), model.updates("a")), model.updates("b"))
    model.merge_adapter(["a", "b"])
    torch.testing.assert_close(logits(model, ids), logits(reference, ids), rtol=1e-3, atol=1e-3)
    with pytest.raises(UserError, match="unmerge_adapter"):
        model.add_adapter("c", config(svd_recipe="exact"))
    model.unmerge_adapter()
    model.delete_adapter("a")
    with model.disable_adapter():
        assert torch.equal(logits(model, ids), backbone)


def test_weighted_sums_are_exact(ids):
    model, _ = two_adapters(ids, r=2, k=K - 2, target_modules=["q_proj", "down_proj"], use_rslora=True)
    for kind in ("linear", "cat"):
        model.add_weighted_adapter(["a", "b"], [0.5, -2.0], kind, combination_type=kind)
        parts = [(model.updates("a"), 0.5), (model.updates("b"), -2.0)]
        model.set_adapter(kind)
        model.retract()  # as in further training
        for name, update in model.updates(kind).items():
            expected = sum(p[name].scaled(w).dense() for p, w in parts if name in p)
            torch.testing.assert_close(update.dense(), expected, rtol=1e-4, atol=1e-5)
        assert model.peft_config[kind].r == R + 2
        assert set(model.updates(kind)) == set(model.updates("a")) | set(model.updates("b"))


@pytest.mark.parametrize(
    ("first", "second", "k", "projected"),
    [
        ({"principal": False}, {"principal": False, "k": K - 2}, K - 2, True),
        ({"principal": False}, {"k": K - 2}, K - 2, True),
        ({"principal": False, "k": K - 2}, {}, K, False),
        ({"principal": False, "side": "inside"}, {"principal": False, "side": "inside", "k": K - 2}, K, True),
    ],
)
def test_training_a_weighted_sum_further_keeps_it(first, second, k, projected):
    model = trained(make_llama(), adapter="a", options=config(**first))
    model.add_adapter("b", config(**second))
    perturb(model, "b", seed=8)
    model.add_weighted_adapter(["a", "b"], [0.5, -2.0], "c", combination_type="cat")
    assert (model.peft_config["c"].k, model.peft_config["c"].project_residual) == (k, projected)
    model.set_adapter("c")
    model.retract()
    for name, update in model.updates("c").items():
        expected = model.updates("a")[name].scaled(0.5).dense() - 2 * model.updates("b")[name].dense()
        torch.testing.assert_close(update.dense(), expected, rtol=1e-4, atol=1e-5)


def test_weighted_sums_of_random_directions(ids):
    random = {"principal": False, "basis": "random", "side": "inside"}
    model = trained(make_llama(), adapter="a", options=config(**random))
    model.add_adapter("b", config(**random | {"r": 2}))
    perturb(model, "b", seed=8)
    model.add_weighted_adapter(["a", "b"], [0.5, -2.0], "c", combination_type="cat")
    for name, update in model.updates("c").items():
        expected = model.updates("a")[name].scaled(0.5).dense() - 2 * model.updates("b")[name].dense()
        torch.testing.assert_close(update.dense(), expected, rtol=1e-4, atol=1e-5)
    others = {"outside": {"side": "outside"}, "seed": {"basis_seed": 1}, "singular": {"basis": "singular"}}
    for name, change in others.items():
        model.add_adapter(name, config(**random | change))
        with pytest.raises(UserError, match="different sides" if name == "outside" else "different singular bases"):
            model.add_weighted_adapter(["a", name], [1.0, 1.0], "d")
    with pytest.raises(UserError, match="ranks of the adapters add up to 8, more than the k=6 directions"):
        model.add_weighted_adapter(["a", "b", "a"], [1.0, 1.0, 1.0], "d")


@pytest.mark.parametrize("beside", [{"modules_to_save": ["lm_head"]}, {"trainable_token_indices": [1, 5]}])
def test_weighted_sums_of_more_than_factors_are_refused(ids, beside):
    model, _ = two_adapters(ids, **beside)
    for adapters in (["a", "b"], ["b"], ["b", "b"]):
        with pytest.raises(UserError, match=f"'b' has {next(iter(beside))}.*hiplora-merge.*hiplora.export_lora"):
            model.add_weighted_adapter(adapters, [1.0] * len(adapters), "c")
    model.add_weighted_adapter(["a"], [1.0], "c")
    assert set(model.peft_config) == {"a", "b", "c"}


def test_weighted_sums_that_would_lose_phi_are_refused(ids):
    model, _ = two_adapters(ids, svd_recipe="randomized", svd_oversampling=0, svd_power_iterations=0)
    for kind in ("svd", "ties", "dare_linear", "magnitude_prune"):
        with pytest.raises(UserError, match="lose φ"):
            model.add_weighted_adapter(["a", "b"], [1.0, 1.0], "c", combination_type=kind, density=0.5)
    with pytest.raises(UserError, match="different singular bases"):
        model.add_weighted_adapter(["a", "b"], [1.0, 1.0], "c")
    with pytest.raises(UserError, match="exists already"):
        model.add_weighted_adapter(["a"], [1.0], "b")
    with pytest.raises(UserError, match="no adapter 'x'"):
        model.add_weighted_adapter(["a", "x"], [1.0, 1.0], "c")
    assert set(model.peft_config) == {"a", "b"}
