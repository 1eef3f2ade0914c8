from __future__ import annotations

import importlib
import warnings
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from hiplora.errors import UserError
from hiplora.methods import METHODS, method_class
from hiplora.methods.base import Method
from tests.tiny import tiny_llama_folder
from tests.training.worker import CONFIG, OPTIONS, TRAINING

SHAPES = {"q": (64, 64), "k": (32, 64)}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llama_folder(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HIPLORA_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


def test_registry() -> None:
    for name, target in METHODS.items():
        module, attribute = target.split(":")
        assert method_class(name) is getattr(importlib.import_module(module), attribute)
        assert issubclass(method_class(name), Method)
    with pytest.raises(UserError, match="method=hipp is not known; choose one of hip, lora"):
        method_class("hipp")


@pytest.mark.parametrize("name", OPTIONS)
def test_updates_are_what_the_adapter_adds(tiny: Path, name: str) -> None:
    """Against the adapted model itself: folding ΔW into the weights gives the same logits."""
    method = OPTIONS[name]
    backbone = AutoModelForCausalLM.from_pretrained(tiny, dtype=torch.float32)
    before = {key: value.clone() for key, value in backbone.state_dict().items()}
    torch.manual_seed(0)
    model = method.attach(backbone, config=CONFIG).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.normal_(std=0.1)
        method.after_step(model, 1)
        ids = torch.arange(2, 20)[None]
        adapted = model(ids).logits
        updates = method.updates(model)
        counted = sum(p.numel() for p in model.parameters() if p.requires_grad)
        assert method.deployed_parameters(model) == counted
        assert len(method.param_groups(model, training=TRAINING)) == (2 if name == "hip" else 1)

        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)
            bare = method.detach(model)
            method.detach(method.attach(bare, config=CONFIG))  # a second adapter is attached without complaint
        assert {key: value.shape for key, value in bare.state_dict().items()} == {k: v.shape for k, v in before.items()}
        assert all(torch.equal(value, before[key]) for key, value in bare.state_dict().items())
        for key, update in updates.items():
            bare.get_submodule(key).weight += update.dense()
    torch.testing.assert_close(bare(ids).logits, adapted, rtol=1e-4, atol=1e-4)


def test_learning_rate_of_the_principal_channel(tiny: Path) -> None:
    method: Any = replace(OPTIONS["hip"], lr_scale=10.0)  # type: ignore[call-arg]
    model = method.attach(AutoModelForCausalLM.from_pretrained(tiny), config=CONFIG)
    residual, principal = method.param_groups(model, training=TRAINING)
    assert principal["lr"] == pytest.approx(10 * residual["lr"])
    assert {p.ndim for p in principal["params"]} == {1}
    assert len(residual["params"]) == 2 * len(principal["params"]) == 2 * len(method.updates(model))


@pytest.mark.parametrize(
    ("name", "change", "told"),
    [
        ("lora", {"r": 0}, "method.r=0"),
        ("lora", {"alpha": -1}, "method.alpha=-1"),
        ("proj", {"dropout": 1.0}, "method.dropout=1.0"),
        ("proj", {"k": 0}, "method.k=0"),
        ("hip", {"stability": -0.1}, "method.stability=-0.1"),
        ("hip", {"gamma": -1.0}, "method.gamma=-1.0"),
        ("hip", {"lr_scale": 0.0}, "method.lr_scale=0.0"),
        ("hip", {"parameterization": "log"}, "choose absolute or relative"),
    ],
)
def test_bad_options_are_told(name: str, change: dict[str, Any], told: str) -> None:
    with pytest.raises(UserError, match=told):
        replace(OPTIONS[name], **change)


def test_options_are_checked_against_the_matrices() -> None:
    OPTIONS["hip"].check(SHAPES)
    with pytest.raises(UserError, match=r"method.k=33 exceeds the smaller side of k \(32 × 64\): choose at most 32"):
        replace(OPTIONS["hip"], k=33).check(SHAPES)  # type: ignore[call-arg]
    with pytest.raises(UserError, match=r"method\.r=40"):
        replace(OPTIONS["lora"], r=40).check(SHAPES)  # type: ignore[call-arg]
    with pytest.raises(UserError, match="target_modules"):
        OPTIONS["lora"].check({})


def test_plain_lora_configuration() -> None:
    config: Any = SimpleNamespace(model=CONFIG.model)
    peft_config: Any = replace(OPTIONS["lora"], alpha=None).peft_config(config=config)  # type: ignore[call-arg]
    assert (peft_config.r, peft_config.lora_alpha, peft_config.lora_dropout) == (4, 8, 0.05)
