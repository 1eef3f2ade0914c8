"""Proj-LoRA's controls, trained: the update lies where it should, and the folder remembers the directions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from hiplora.adapters.exporting import export_lora
from hiplora.adapters.reading import read_adapter
from hiplora.errors import UserError
from hiplora.tuner.model import adapted_layers
from tests.training.worker import OPTIONS, VARIANTS, attached, fit

ARMS = {name: VARIANTS[name] for name in ("proj_random", "lora_inside", "lora_inside_random")} | {
    "proj": OPTIONS["proj"]
}


@pytest.mark.parametrize("name", ARMS)
def test_a_trained_update_lies_on_its_side_of_the_directions(tiny: Path, tmp_path: Path, name: str) -> None:
    """To 1e-6 of its norm, on both sides; singular directions are torch's own."""
    method: Any = ARMS[name]
    model = attached(tiny, method)
    fit(model, tiny, method, tmp_path)
    layers = adapted_layers(model.get_base_model(), "default")
    assert len(layers) == 8
    for module, update in method.updates(model).items():
        dense, basis, layer = update.dense().double(), layers[module].basis("default"), layers[module]
        U, V = (part[:, : method.k].double() for part in (basis.U, basis.V))
        left, right = U @ (U.T @ dense), (dense @ V) @ V.T
        wrong = (dense - left, dense - right) if method.side == "inside" else (left, right)
        assert dense.norm() > 0.01
        assert all(part.norm() < 1e-6 * dense.norm() for part in wrong)
        exact = torch.linalg.svd(layer.base_weight.double())[0][:, : method.k]
        same = torch.linalg.svdvals(exact.T @ U).min() > 1 - 1e-6
        assert bool(same) is (method.basis == "singular")


@pytest.mark.parametrize("name", ARMS)
def test_b_has_a_gradient_at_the_start_and_a_the_size_of_loras(tiny: Path, name: str) -> None:
    plain, model = attached(tiny, OPTIONS["lora"]), attached(tiny, ARMS[name])
    ids = torch.arange(2, 40)[None]
    model(ids, labels=ids).loss.backward()
    ours, theirs = dict(model.named_parameters()), dict(plain.named_parameters())
    for key, parameter in ours.items():
        if "lora_B" in key:
            assert parameter.grad is not None
            assert parameter.grad.norm() > 0
        if "lora_A" in key:
            assert 0.6 < parameter.norm() / theirs[key].norm() < 1.6


@pytest.mark.parametrize("save_basis", [False, True])
@pytest.mark.parametrize("name", ARMS)
def test_the_folder_remembers_the_directions(tiny: Path, tmp_path: Path, name: str, save_basis: bool) -> None:
    """It loads to the same directions bit for bit, and is read and exported exactly without them."""
    method: Any = ARMS[name]
    model = attached(tiny, method)
    fit(model, tiny, method, tmp_path / "checkpoints", steps=2)
    model.peft_config["default"].save_basis = save_basis
    method.save(model, tmp_path / "adapter")
    loaded = method.load(AutoModelForCausalLM.from_pretrained(tiny), tmp_path / "adapter")
    before, after = (adapted_layers(m.get_base_model(), "default") for m in (model, loaded))
    assert loaded.peft_config["default"].basis_options == model.peft_config["default"].basis_options
    assert all(layer.basis("default").same_directions(before[key].basis("default")) for key, layer in after.items())

    export_lora(tmp_path / "adapter", tmp_path / "plain")
    updates = method.updates(model)
    for folder in ("adapter", "plain"):
        read = read_adapter(str(tmp_path / folder)).updates
        assert read.keys() == updates.keys()
        for key, update in read.items():
            torch.testing.assert_close(update.dense(), updates[key].dense(), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("proj_random", {"basis": "singular"}),
        ("proj_random", {"basis_seed": 1}),
        ("proj", {"basis": "random"}),
    ],
)
def test_other_directions_are_refused(tiny: Path, tmp_path: Path, name: str, other: dict[str, Any]) -> None:
    """Whether the adapter is loaded under another configuration or gone on from."""
    method: Any = ARMS[name]
    model = attached(tiny, method)
    native = fit(model, tiny, method, tmp_path / "checkpoints", steps=1).native
    method.save(model, tmp_path / "adapter")
    others = attached(tiny, method.but(**other))
    with pytest.raises(UserError, match="another backbone or singular basis"):
        others.load_adapter(str(tmp_path / "adapter"), "default")
    with pytest.raises(UserError, match=r"other directions of model\.layers\.0"):
        method.but(**other).go_on(others, native)


def test_random_directions_belong_to_one_backbone(tiny: Path, tmp_path: Path) -> None:
    """They are drawn alike for every backbone of these shapes; what they are of its weights is not alike."""
    method: Any = ARMS["proj_random"]
    method.save(attached(tiny, method), tmp_path / "adapter")
    backbone = AutoModelForCausalLM.from_pretrained(tiny)
    with torch.no_grad():
        backbone.model.layers[1].self_attn.q_proj.weight.normal_(std=0.02)
    with pytest.raises(UserError, match=r"another backbone.*at model\.layers\.1\.self_attn\.q_proj the values of σ"):
        method.load(backbone, tmp_path / "adapter")
