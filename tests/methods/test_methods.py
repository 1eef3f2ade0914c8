from __future__ import annotations

import importlib
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from hiplora.errors import UserError
from hiplora.methods import METHODS, method_class
from hiplora.methods.base import Method
from tests.training.worker import OPTIONS, SETUP, TRAINING, VARIANTS, attached, fit

SHAPES = {"q": (64, 64), "k": (32, 64)}


def test_registry() -> None:
    for name, target in METHODS.items():
        module, attribute = target.split(":")
        assert method_class(name) is getattr(importlib.import_module(module), attribute)
        assert issubclass(method_class(name), Method)
    with pytest.raises(UserError, match="method=hipp is not known; choose one of hip, lora"):
        method_class("hipp")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize("name", OPTIONS)
def test_a_method_starts_at_the_backbone_and_trains_factors_alone(tiny: Path, name: str, dtype: torch.dtype) -> None:
    """In the backbone's dtype: PEFT rounds, casts and unfreezes some things there that it leaves alone in fp32."""
    backbone = AutoModelForCausalLM.from_pretrained(tiny, dtype=dtype)
    scale = {key: value.float().norm() for key, value in backbone.state_dict().items()}
    model = OPTIONS[name].attach(backbone, setup=SETUP)
    for key, update in OPTIONS[name].updates(model).items():
        assert update.norm() < 1e-6 * scale[f"{key}.weight"]
    prefix: Any = model.base_model.prefix
    assert all(f".{prefix}" in n for n, p in model.named_parameters() if p.requires_grad)
    assert all(p.dtype is torch.float32 for p in model.parameters() if p.requires_grad)


@pytest.mark.parametrize("name", [*OPTIONS, *VARIANTS])
def test_updates_are_what_the_adapter_adds(tiny: Path, tmp_path: Path, name: str) -> None:
    """Against the adapted model itself, and against its copy from disk: ΔW folded in gives the same logits."""
    method = {**OPTIONS, **VARIANTS}[name]
    backbone = AutoModelForCausalLM.from_pretrained(tiny, dtype=torch.float32)
    before = {key: value.clone() for key, value in backbone.state_dict().items()}
    ids = torch.arange(2, 20)[None]
    plain = backbone(ids).logits
    torch.manual_seed(0)
    model = method.attach(backbone, setup=SETUP).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter += 0.1 * torch.randn_like(parameter)
    for shard in range(method.shards):
        method.before_micro_batch(model, shard)
        model(ids).logits.square().mean().backward()
    method.after_step(model, 1)
    method.finish(model)
    adapted = model(ids).logits.detach()
    assert (adapted - plain).abs().max() > 0.1
    method.save(model, tmp_path)
    updates, deployed = method.updates(model), method.deployed_parameters(model)
    assert all(not part.requires_grad for update in updates.values() for part in parts(update))

    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        bare = method.detach(model)
        method.detach(method.attach(bare, setup=SETUP))  # a second adapter is attached without complaint
    assert bare.state_dict().keys() == before.keys()
    assert all(torch.equal(value, before[key]) for key, value in bare.state_dict().items())

    loaded = method.load(bare, tmp_path)
    torch.testing.assert_close(loaded(ids).logits, adapted, rtol=1e-4, atol=1e-4)
    assert method.deployed_parameters(loaded) == deployed
    for key, update in method.updates(loaded).items():
        torch.testing.assert_close(update.dense(), updates[key].dense(), rtol=1e-4, atol=1e-5)
    bare = method.detach(loaded)
    with torch.no_grad():
        for key, update in updates.items():
            bare.get_submodule(key).weight += update.dense()
    torch.testing.assert_close(bare(ids).logits, adapted, rtol=1e-4, atol=1e-4)


def parts(update: Any) -> list[torch.Tensor]:
    return [value for value in vars(update).values() if isinstance(value, torch.Tensor)]


def test_deployed_parameters_against_lora(tiny: Path) -> None:
    """LoRA's, or the method says why not."""

    def counted(name: str) -> int:
        method = {**OPTIONS, **VARIANTS}[name]
        model = method.attach(AutoModelForCausalLM.from_pretrained(tiny), setup=SETUP)
        method.finish(model)
        return method.deployed_parameters(model)

    lora = counted("lora")
    assert {name for name in OPTIONS if method_class(name).parity_exception} >= {"pissa", "split", "dora", "adalora"}
    assert counted("proj") == counted("split") == counted("lora_inside") == counted("lora_fa") == lora
    assert counted("pissa") == 2 * lora
    assert counted("hip") == lora + 8 * 8  # one gain per direction and matrix


@pytest.mark.parametrize("name", ["lora", "proj", "hip"])
def test_learning_rate_of_b(tiny: Path, name: str) -> None:
    """Every parameter is in one group; LoRA+ moves B alone to another rate, and 1 leaves LoRA's groups."""
    model = OPTIONS[name].attach(AutoModelForCausalLM.from_pretrained(tiny), setup=SETUP)
    named = {id(p): key for key, p in model.named_parameters() if p.requires_grad}

    def rates(ratio: float) -> dict[str, float]:
        groups = OPTIONS[name].but(lora_plus=ratio).param_groups(model, training=TRAINING)
        assert all(group["weight_decay"] == TRAINING.weight_decay for group in groups)
        listed = [(named[id(p)], group["lr"]) for group in groups for p in group["params"]]
        assert len(listed) == len(named) == len(dict(listed))
        return dict(listed)

    equal = rates(1.0)
    assert {rate for key, rate in equal.items() if "lora_phi" not in key} == {TRAINING.lr}
    assert rates(16.0) == {key: rate * (16 if "lora_B" in key else 1) for key, rate in equal.items()}


def test_rslora_scales_by_the_root_of_the_rank(tiny: Path) -> None:
    method: Any = OPTIONS["lora"].but(rslora=True, alpha=6)
    model = method.attach(AutoModelForCausalLM.from_pretrained(tiny), setup=SETUP)
    layer: Any = model.get_base_model().model.layers[0].self_attn.q_proj
    B, A = (factors["default"].weight for factors in (layer.lora_B, layer.lora_A))
    with torch.no_grad():
        B.normal_()
    update = method.updates(model)["model.layers.0.self_attn.q_proj"]
    torch.testing.assert_close(update.dense(), (6 / 4**0.5 * B @ A).detach())


def test_a_frozen_a_stays_as_it_was_drawn(tiny: Path, tmp_path: Path) -> None:
    """And goes on as it is, whatever the seed of the fresh adapter that it is put on."""
    method = VARIANTS["lora_fa"]
    model = attached(tiny, method)
    drawn = {key: p.clone() for key, p in model.named_parameters() if "lora_A" in key}
    native = fit(model, tiny, method, tmp_path).native
    torch.manual_seed(8)
    other = method.attach(AutoModelForCausalLM.from_pretrained(tiny), setup=SETUP)
    method.go_on(other, native)
    for key, A in drawn.items():
        assert torch.equal(dict(model.named_parameters())[key], A)
        assert torch.equal(dict(other.named_parameters())[key], A)
    assert len(drawn) == 8
    assert native["adapter"].keys() == {key.replace("lora_A", "lora_B") for key in drawn}
    assert all(value.abs().max() > 0 for value in native["adapter"].values())


def test_learning_rate_of_the_principal_channel(tiny: Path) -> None:
    method: Any = OPTIONS["hip"].but(lr_scale=10.0)
    model = method.attach(AutoModelForCausalLM.from_pretrained(tiny), setup=SETUP)
    residual, principal = method.param_groups(model, training=TRAINING)
    assert principal["lr"] == pytest.approx(10 * residual["lr"])
    assert {p.ndim for p in principal["params"]} == {1}
    assert len(residual["params"]) == 2 * len(principal["params"]) == 2 * len(method.updates(model))


@pytest.mark.parametrize(
    ("name", "change", "told"),
    [
        ("lora", {"r": 0}, "method.r=0"),
        ("lora", {"alpha": -1}, "method.alpha=-1"),
        ("lora", {"lora_plus": 0.0}, r"method\.lora_plus=0\.0 must be at least 0\.0001, e\.g\. 16"),
        ("lora", {"lora_plus": 4.0, "freeze_a": True}, r"method\.freeze_a=true trains no A: drop one"),
        ("proj", {"basis": "other"}, r"method\.basis='other' is not known; choose singular or random"),
        ("proj", {"side": "within"}, "choose outside or inside"),
        ("proj", {"basis_seed": 1}, r"method\.basis_seed=1 has no effect without method\.basis=random"),
        ("proj", {"side": "inside", "r": 9}, r"method\.r=9 exceeds method\.k=8"),
        ("proj", {"dropout": 1.0}, "method.dropout=1.0"),
        ("proj", {"k": 0}, "method.k=0"),
        ("hip", {"stability": -0.1}, "method.stability=-0.1"),
        ("hip", {"gamma": -1.0}, "method.gamma=-1.0"),
        ("hip", {"lr_scale": 0.0}, "method.lr_scale=0.0"),
        ("hip", {"parameterization": "log"}, "choose absolute or relative"),
        ("pissa", {"iterations": 0}, "method.iterations=0"),
        ("split", {"clients": 0}, "method.clients=0"),
        ("split", {"average_every": 0}, "method.average_every=0"),
        ("split", {"cut": 1.0}, "method.cut=1.0"),
        ("adalora", {"init_r": 4}, "method.init_r=4 is not above method.target_r=4"),
        ("adalora", {"tinit": 0.6}, "stay below 1"),
        ("adalora", {"delta_t": 0.0}, "method.delta_t=0.0"),
        ("adalora", {"orthogonality": -1.0}, "method.orthogonality=-1.0"),
    ],
)
def test_bad_options_are_told(name: str, change: dict[str, Any], told: str) -> None:
    with pytest.raises(UserError, match=told):
        OPTIONS[name].but(**change)


def test_options_are_checked_against_the_matrices() -> None:
    OPTIONS["hip"].check(SHAPES)
    with pytest.raises(UserError, match=r"method.k=33 exceeds the smaller side of k \(32 × 64\): choose at most 32"):
        OPTIONS["hip"].but(k=33).check(SHAPES)
    with pytest.raises(UserError, match=r"method\.r=40"):
        OPTIONS["lora"].but(r=40).check(SHAPES)


def test_plain_lora_configuration() -> None:
    peft_config: Any = OPTIONS["lora"].but(alpha=None).peft_config(setup=SETUP)
    assert (peft_config.r, peft_config.lora_alpha, peft_config.lora_dropout) == (4, 8, 0.05)
