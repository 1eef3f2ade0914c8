"""Singular directions of a line of trainings: those of the original weights, throughout."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from hiplora.errors import UserError
from hiplora.methods import METHODS, method_class
from tests.tiny import tiny_llama_folder
from tests.training.worker import OPTIONS, SETUP, VARIANTS, attached, fit

NAMES = [name for name in METHODS if method_class(name).uses_svd]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HIPLORA_CACHE", str(tmp_path / "cache"))


def bases(model: Any) -> dict[str, Any]:
    modules = model.get_base_model().named_modules()
    return {name: module.basis("default") for name, module in modules if hasattr(module, "lora_basis")}


@pytest.mark.parametrize("name", NAMES)
def test_a_child_has_the_directions_of_the_original_weights(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Against torch's exact SVD; both trainings compute them from nothing, and the saved child names them."""
    method = OPTIONS[name]
    parent = attached(tiny, method)
    native = fit(parent, tiny, method, tmp_path / "first").native
    monkeypatch.setenv("HIPLORA_CACHE", str(tmp_path / "empty"))
    child = attached(tiny, method)
    method.go_on(child, native)
    fit(child, tiny, method, tmp_path / "second", seed=43)
    original = AutoModelForCausalLM.from_pretrained(tiny, dtype=torch.float32)
    assert len(bases(child)) == 8
    for module, basis in bases(child).items():
        assert basis.same_directions(bases(parent)[module])
        U, S, Vh = torch.linalg.svd(original.get_submodule(module).weight.detach().double())
        k = basis.size
        torch.testing.assert_close(basis.S.double(), S[:k], rtol=1e-5, atol=1e-6)
        assert torch.linalg.svdvals(basis.U.double().mT @ U[:, :k]).min() > 1 - 1e-6
        assert torch.linalg.svdvals(basis.V.double().mT @ Vh[:k].mT).min() > 1 - 1e-6
    method.save(child, tmp_path / "child")
    method.load(original, tmp_path / "child")  # refuses an adapter of other directions


@pytest.mark.parametrize("name", NAMES)
def test_other_directions_are_refused(tiny: Path, tmp_path: Path, name: str) -> None:
    method, other = OPTIONS[name], tiny_llama_folder(tmp_path / "other", seed=1)
    parent = attached(tiny, method)
    native = fit(parent, tiny, method, tmp_path / "first", steps=1).native
    child = attached(other, method)
    with pytest.raises(UserError, match=r"other directions of model\.layers\.0\..*train it again"):
        method.go_on(child, native)


@pytest.mark.parametrize("name", NAMES)
def test_a_cache_with_more_directions_serves(tiny: Path, name: str) -> None:
    method = OPTIONS[name]
    assert SETUP.svd is not None
    wide = replace(SETUP, svd=SETUP.svd.but(k_max=24))
    model = method.attach(AutoModelForCausalLM.from_pretrained(tiny, dtype=torch.float32), setup=wide)
    method.load_state(model, method.state(attached(tiny, method)))


def test_random_directions_are_not_limited_by_the_number_of_singular_ones() -> None:
    assert SETUP.svd is not None
    VARIANTS["proj_random"].but(k=24).check_svd(SETUP.svd)
    with pytest.raises(UserError, match=r"method\.k=24 exceeds svd\.k_max=16"):
        OPTIONS["proj"].but(k=24).check_svd(SETUP.svd)
