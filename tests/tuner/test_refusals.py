"""Mistakes in the options: one sentence each, and the model untouched."""

from __future__ import annotations

import pytest
import torch
from peft import get_peft_model
from torch import nn

from hiplora.errors import UserError
from hiplora.tuner import HipLinear
from hiplora.tuner.config import REFUSED
from tests.tuner.helpers import config, make_llama, mlp_config

OPTIONS = {
    "r=0": {"r": 0},
    "r=1.5": {"r": 1.5},
    "proj r=0": {"r": 0, "principal": False},
    "rank pattern": {"rank_pattern": {"q_proj": 0}},
    "alpha pattern": {"alpha_pattern": {"q_proj": 0}},
    "k=0": {"k": 0},
    "k=65": {"k": 65},
    "λ<0": {"stability": -0.1},
    "λ=nan": {"stability": float("nan")},
    "γ<0": {"gamma": -1.0},
    "γ=text": {"gamma": "one"},
    "lr_scale=0": {"lr_scale": 0},
    "alpha=0": {"lora_alpha": 0},
    "dropout=1": {"lora_dropout": 1.0},
    "parameterization": {"parameterization": "exotic"},
    "recipe": {"svd_recipe": "fast"},
    "init": {"init_lora_weights": "pissa"},
    "init eva": {"init_lora_weights": "orthogonal"},
    "zero init without φ": {"principal": False, "zero_init": True},
    "random directions with φ": {"basis": "random"},
    "inside with φ": {"side": "inside"},
    "seed of singular directions": {"principal": False, "basis_seed": 1},
    "rank inside": {"principal": False, "side": "inside", "r": 7},
    "plain LoRA": {"principal": False, "project_residual": False},
}


@pytest.mark.parametrize("changes", OPTIONS.values(), ids=OPTIONS)
def test_options_out_of_range(changes):
    with pytest.raises(UserError) as caught:
        config(**changes)
    message = str(caught.value)
    assert message.endswith(".")
    assert ". " not in message
    assert any(name in message for name in changes)


@pytest.mark.parametrize("name", REFUSED)
def test_extensions_of_lora_that_would_replace_the_update(name):
    value = {"loftq_config": {"loftq_bits": 4}, "target_parameters": ["x"]}.get(name, True)
    for given in [value, {}] if name.endswith("config") and name != "loftq_config" else [value]:
        with pytest.raises(UserError, match=f"{name}=.* does not go together"):
            config(**{name: given})


TARGETS = {
    "missing": ({"target_modules": ["first", "frist"]}, "frist, which the model does not have; .* first"),
    "missing regex": ({"target_modules": r"layers\..*"}, "does not have"),
    "too small": ({"k": 8}, "k=8 is larger than the target first allows.*20×7.*at most 7"),
    "embedding": ({"target_modules": ["first", "table"]}, "table is Embedding"),
    "attention": ({"target_modules": ["attention"]}, "attention is MultiheadAttention"),
    "inside attention": ({"target_modules": ["out_proj"]}, "part of nn.MultiheadAttention"),
}


@pytest.mark.parametrize(("changes", "message"), TARGETS.values(), ids=TARGETS)
def test_targets_that_cannot_be_adapted(mlp, changes, message):
    before = {name: value.clone() for name, value in mlp.state_dict().items()}
    with pytest.raises(UserError, match=message) as caught:
        get_peft_model(mlp, mlp_config(**changes))
    assert ". " not in str(caught.value).replace("torch.nn", "")
    assert not any(isinstance(module, HipLinear) for module in mlp.modules())
    assert all(torch.equal(before[name], value) for name, value in mlp.state_dict().items())
    assert all(parameter.requires_grad for parameter in mlp.parameters())


def test_weights_without_values_are_refused(mlp):
    with pytest.raises(UserError, match="meta device"):
        get_peft_model(mlp.to("meta"), mlp_config())

    class Packed(nn.Linear):
        """A linear layer whose weight is stored in another type, as quantised ones are."""

    packed = Packed(8, 8)
    packed.weight = nn.Parameter(torch.zeros(8, 8, dtype=torch.uint8), requires_grad=False)
    with pytest.raises(UserError, match=r"the target 0 is quantised \(uint8\); give the backbone in fp32"):
        get_peft_model(nn.Sequential(packed), mlp_config(target_modules=["0"]))


def test_nan_in_the_backbone_is_named(mlp):
    mlp.second.weight.data[0, 0] = float("nan")
    with pytest.raises(UserError, match=r"second.*NaN"):
        get_peft_model(mlp, mlp_config())


def test_a_second_adapter_that_is_refused_leaves_the_first_alone(ids):
    model = get_peft_model(make_llama(), config())
    with pytest.raises(UserError, match="k=24"):
        model.add_adapter("second", config(k=24))
    assert set(model.peft_config) == {"default"}
    assert all(set(m.lora_A) == {"default"} for m in model.modules() if isinstance(m, HipLinear))
    with pytest.raises(UserError, match="no adapter 'second'"):
        model.updates("second")


def test_all_linear_targets():
    model = get_peft_model(make_llama(), config(target_modules="all-linear"))
    assert len(model.updates()) == 2 * 7
    assert "lm_head" not in model.updates()
