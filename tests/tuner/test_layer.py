"""The method's equations on whole models, against dense references in fp64."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from peft import get_peft_model

from hiplora.tuner import HipLinear, HipLoraConfig
from hiplora.updates import LowRank, Principal
from tests.tuner.helpers import K, R, config, folded, logits, make_llama, mlp_config, perturb, trained

VARIANTS = {
    "hip": {},
    "relative": {"parameterization": "relative"},
    "unprojected": {"project_residual": False},
    "proj": {"principal": False},
    "rslora": {"use_rslora": True},
    "rank-pattern": {"rank_pattern": {"v_proj": 5}, "alpha_pattern": {"q_proj": 2}},
}


def hip_layers(model):
    return {n: m for n, m in model.named_modules() if isinstance(m, HipLinear)}


@pytest.mark.parametrize("changes", VARIANTS.values(), ids=VARIANTS)
def test_forward_and_updates_are_the_dense_formula(changes, ids):
    model = trained(make_llama(), options=config(**changes))
    updates = model.updates()
    assert set(updates) == {f"model.layers.{i}.self_attn.{p}_proj" for i in (0, 1) for p in "qkvo"}
    reference = folded(make_llama(), updates)
    torch.testing.assert_close(logits(model, ids), logits(reference, ids), rtol=1e-4, atol=1e-4)
    for name, layer in hip_layers(model.base_model.model).items():
        A, B = (factor.detach().double() for factor in layer.factors("default"))
        W = layer.base_weight.double()
        expected = layer.scaling["default"] * B @ A
        if "principal" not in changes:
            U, S, Vh = torch.linalg.svd(W, full_matrices=False)
            phi = layer.lora_phi["default"].detach().double()
            phi = phi * S[:K] if "parameterization" in changes else phi
            expected += U[:, :K] @ torch.diag(phi) @ Vh[:K]
        torch.testing.assert_close(updates[name].dense().double(), expected, rtol=1e-4, atol=1e-5)


def test_scaling_is_alpha_over_r_per_module_and_over_its_root_in_rslora():
    model = trained(make_llama(), options=config(**VARIANTS["rank-pattern"]))
    layers = hip_layers(model.base_model.model)
    assert layers["model.layers.0.self_attn.v_proj"].scaling["default"] == 2 * R / 5
    assert layers["model.layers.0.self_attn.q_proj"].scaling["default"] == 2 / R
    for use_rslora, factor in ((False, 2), (True, 2 * R / math.sqrt(R))):
        model = get_peft_model(make_llama(), config(use_rslora=use_rslora))
        scales = [layer.scaling["default"] for layer in hip_layers(model).values()]
        assert scales == pytest.approx([factor] * 8), "alpha is 2r by default; rsLoRA divides it by the root of r"


def test_a_fresh_adapter_changes_nothing_and_both_channels_learn(llama, ids):
    before = logits(llama, ids)
    model = get_peft_model(llama, config())
    torch.testing.assert_close(logits(model, ids), before, rtol=0, atol=0)
    model(ids, labels=ids).loss.backward()
    for layer in hip_layers(model).values():
        A, B = layer.factors("default")
        assert layer.lora_phi["default"].grad.abs().max() > 0
        assert B.grad.abs().max() > 0
        assert A.grad.abs().max() == 0  # B is still 0
        assert A.abs().max() > 0


def test_zero_init_takes_the_principal_part_out_of_the_weight(llama):
    for parameterization in ("absolute", "relative"):
        model = get_peft_model(copy.deepcopy(llama), config(zero_init=True, parameterization=parameterization))
        for layer in hip_layers(model).values():
            W = layer.base_weight.double()
            U, S, Vh = torch.linalg.svd(W, full_matrices=False)
            rest = W + layer.get_delta_weight("default").double()
            expected = U[:, K:] @ torch.diag(S[K:]) @ Vh[K:]
            torch.testing.assert_close(rest, expected, rtol=1e-4, atol=1e-4)


def test_zero_init_is_not_rounded_to_the_backbone(llama):
    model = get_peft_model(llama.bfloat16(), config(zero_init=True))
    layer = next(iter(hip_layers(model).values()))
    torch.testing.assert_close(layer.lora_phi["default"].detach(), -layer.basis("default").S[:K], rtol=0, atol=0)


def test_residual_is_annihilated_on_both_sides_and_retraction_is_idempotent():
    model = trained(make_llama(), options=config(principal=False))
    for layer in hip_layers(model).values():
        update, basis = layer.update("default"), layer.basis("default")
        assert isinstance(update, LowRank)
        assert (basis.U[:, :K].T @ update.dense()).abs().max() < 1e-5
        assert (update.dense() @ basis.V[:, :K]).abs().max() < 1e-5
        once = [factor.detach().clone() for factor in layer.factors("default")]
        layer.retract("default")
        for before, after in zip(once, layer.factors("default"), strict=True):
            torch.testing.assert_close(after.detach(), before, rtol=1e-5, atol=1e-6)


def test_without_projection_retraction_leaves_the_factors_alone():
    model = trained(make_llama(), options=config(project_residual=False))
    before = copy.deepcopy(model.state_dict())
    model.retract()
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


def test_further_training_leaves_updates_as_they_were():
    model = trained(make_llama())
    updates = model.updates()
    before = {name: update.dense() for name, update in updates.items()}
    perturb(model, seed=9)
    assert all(torch.equal(update.dense(), before[name]) for name, update in updates.items())


def test_rank_of_the_update_is_k_plus_r():
    for update in trained(make_llama()).updates().values():
        assert isinstance(update, Principal)
        assert update.rank == K + R == int(torch.linalg.matrix_rank(update.dense(), rtol=1e-4))


def test_bf16_factors_are_projected_in_fp32_and_rounded_once():
    model = trained(make_llama()).to(torch.bfloat16)
    for layer in hip_layers(model).values():
        assert layer.basis("default").V.dtype == torch.float32
        A, B = layer.factors("default")
        U, V = (part[:, :K].double() for part in (layer.basis("default").U, layer.basis("default").V))
        expected_A = (A.double() - A.double() @ V @ V.T).bfloat16()
        expected_B = (B.double() - U @ (U.T @ B.double())).bfloat16()
        layer.retract("default")
        assert A.eq(expected_A).float().mean() > 0.98  # the rest sits on a rounding boundary
        torch.testing.assert_close(A.detach(), expected_A, rtol=2**-7, atol=1e-5)
        torch.testing.assert_close(B.detach(), expected_B, rtol=2**-7, atol=1e-5)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("parameterization", ["absolute", "relative"])
def test_penalty_and_its_gradient_in_closed_form(gamma, parameterization):
    options = config(gamma=gamma, stability=0.7, parameterization=parameterization)
    model = trained(make_llama(), options=options)
    penalty = model.stability_penalty()
    penalty.backward()
    total = 0.0
    for layer in hip_layers(model).values():
        sigma = torch.linalg.svdvals(layer.base_weight.double())[:K]
        stored = layer.lora_phi["default"].detach().double()
        slope = sigma if parameterization == "relative" else torch.ones_like(sigma)
        weights = sigma**gamma / (sigma**gamma).mean()
        total += 0.7 * float((weights * (slope * stored) ** 2).sum())
        expected = 2 * 0.7 * weights * slope**2 * stored
        torch.testing.assert_close(layer.lora_phi["default"].grad.double(), expected, rtol=1e-4, atol=1e-6)
    assert penalty.item() == pytest.approx(total, rel=1e-4)


def test_gradient_of_phi_by_finite_differences(mlp):
    model = get_peft_model(mlp, mlp_config())
    perturb(model)
    model.double()
    x = torch.randn(5, 7, dtype=torch.float64)
    loss = lambda: model(x).square().sum()  # noqa: E731
    loss().backward()
    for layer in hip_layers(model).values():
        phi = layer.lora_phi["default"]
        for i in range(4):
            difference = 0.0
            for sign in (1, -1):
                phi.data[i] += sign * 1e-5
                difference += sign * loss().item()
                phi.data[i] -= sign * 1e-5
            assert phi.grad[i].item() == pytest.approx(difference / 2e-5, rel=1e-5, abs=1e-7)


def test_no_penalty_without_principal_channel_or_stability():
    for changes in ({"principal": False}, {"stability": 0.0}):
        model = trained(make_llama(), options=config(**changes))
        assert model.stability_penalty().item() == 0.0
    assert trained(make_llama(), options=config(principal=False)).principal_parameters() == []
    assert len(trained(make_llama()).principal_parameters()) == 8


def test_dropout_acts_on_the_residual_path_only(ids):
    model = trained(make_llama(), options=config(lora_dropout=0.5)).train()
    assert not torch.equal(logits(model, ids), logits(model, ids))
    for layer in hip_layers(model).values():
        layer.lora_B["default"].weight.data.zero_()
    first = logits(model, ids)
    torch.testing.assert_close(first, logits(model, ids), rtol=0, atol=0)
    torch.testing.assert_close(first, logits(model.eval(), ids))


def test_dropout_is_right_on_average():
    torch.manual_seed(0)
    layer = torch.nn.Sequential(torch.nn.Linear(12, 10))
    model = get_peft_model(layer, HipLoraConfig(r=2, k=3, target_modules=["0"], lora_dropout=0.3))
    perturb(model)
    x = torch.randn(1, 12)
    mean = model.train()(x.expand(20000, 12)).mean(dim=0, keepdim=True)
    torch.testing.assert_close(mean, model.eval()(x), rtol=0.03, atol=0.03)


def test_any_linear_with_bias_smaller_than_k_max(mlp):
    x = torch.randn(5, 7)
    reference = copy.deepcopy(mlp)
    model = get_peft_model(mlp, mlp_config(k=7, r=2))
    perturb(model)
    assert model.updates()["first"].shape == (20, 7)
    expected = folded(reference, model.updates())(x.double())
    torch.testing.assert_close(model(x).double(), expected, rtol=1e-4, atol=1e-5)
