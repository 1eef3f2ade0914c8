"""Going on from an adapter: from its folder and in memory the same, for every method, bit for bit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
from peft import PeftConfig, PeftModel, VeraConfig
from peft.tuners.vera import VeraLayer
from transformers import AutoModelForCausalLM

from hiplora.errors import UserError
from hiplora.methods.base import Method, Setup
from hiplora.stages.artefact import NATIVE, save, tensors_digest
from hiplora.training.trainer import native_state
from hiplora.updates import Dense, Update
from tests.training.worker import OPTIONS, VARIANTS, adapter, attached, fit, interrupted_fit, same

STEPS = 5  # no step at which clients are averaged, so that they differ where one training ends and the next begins


class Vera(Method):
    """A method that nobody here knows, none of whose trained tensors is called lora_*."""

    r: int

    def peft_config(self, *, setup: Setup) -> PeftConfig:
        return VeraConfig(task_type="CAUSAL_LM", r=self.r, target_modules=list(setup.targets))

    def updates(self, peft_model: PeftModel) -> dict[str, Update]:
        modules = peft_model.get_base_model().named_modules()
        layers: dict[str, Any] = {name: module for name, module in modules if isinstance(module, VeraLayer)}
        return {name: Dense(layer.get_delta_weight("default").detach().float()) for name, layer in layers.items()}


METHODS: dict[str, Method] = {**OPTIONS, **VARIANTS, "vera": Vera(name="vera", r=4)}


def fresh(tiny: Path, method: Method) -> Any:
    """In bf16, where PEFT rounds and casts some things that it leaves alone in fp32."""
    return attached(tiny, method, dtype=torch.bfloat16, steps=STEPS)


@pytest.fixture(scope="module")
def stored(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Any]:
    """The native state that a training of five steps leaves in the folder of its adapter, read from there."""
    folders: dict[str, Path] = {}

    def load(name: str) -> Any:
        if name not in folders:
            method, folder = METHODS[name], tmp_path_factory.mktemp(name)
            model = fresh(tiny, method)
            native = fit(model, tiny, method, folder / "checkpoints", steps=STEPS).native
            save(method, model, folder / "adapter", native=native, tensors=tensors_digest(native))
            folders[name] = folder / "adapter"
        return torch.load(folders[name] / NATIVE, weights_only=True)

    return load


def dense(method: Method, model: Any) -> dict[str, torch.Tensor]:
    return {name: update.dense() for name, update in method.updates(model).items()}


@pytest.mark.parametrize("name", METHODS)
def test_from_the_folder_and_in_memory_it_goes_on_to_the_same_bits(
    tiny: Path, tmp_path: Path, stored: Callable[[str], Any], name: str
) -> None:
    """In memory, the model that was trained goes on as it is: nothing is rebuilt, finished or copied."""
    method = METHODS[name]
    held = fresh(tiny, method)
    with patch.object(type(method), "finish", lambda self, model: None):
        fit(held, tiny, method, tmp_path / "held", steps=STEPS)
    between = adapter(held)
    torch.manual_seed(0)
    method.restart(held)
    started = adapter(held)
    in_memory = fit(held, tiny, method, tmp_path / "further", steps=STEPS, seed=43)

    kept = stored(name)
    assert same(kept["adapter"], between)
    again = fresh(tiny, method)
    torch.manual_seed(0)  # of what is drawn anew
    method.go_on(again, kept)
    assert same(adapter(again), started)
    assert same(started, between) is not method.fresh_factors
    from_folder = fit(again, tiny, method, tmp_path / "second", steps=STEPS, seed=43)

    assert from_folder.curve == in_memory.curve
    assert same(from_folder.native, in_memory.native)
    assert not same(from_folder.native["adapter"], between)
    assert same(adapter(again), adapter(held))
    updates = dense(method, again)
    assert same(updates, dense(method, held))
    method.save(again, tmp_path / "child")
    backbone = method.detach(again)
    before = AutoModelForCausalLM.from_pretrained(tiny, dtype=torch.bfloat16).state_dict()
    assert same(dict(backbone.state_dict()), dict(before))
    loaded = method.load(backbone, tmp_path / "child")
    for key, update in dense(method, loaded).items():
        torch.testing.assert_close(update, updates[key], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["adalora", "hip", "pissa", "split", "vera"])
def test_a_resumed_training_that_went_on_ends_with_the_same_bits(
    tiny: Path, tmp_path: Path, stored: Callable[[str], Any], name: str
) -> None:
    """A checkpoint is of the second training; the adapter below it is put back first, as a run does.

    The methods are those with a state beside their tensors, with factors drawn anew, and one that is not ours.
    """
    method = METHODS[name]
    kept = stored(name)

    def went_on() -> Any:
        model = fresh(tiny, method)
        torch.manual_seed(0)
        method.go_on(model, kept)
        return model

    whole, again = went_on(), went_on()
    fit(whole, tiny, method, tmp_path / "whole", steps=STEPS)
    interrupted_fit(went_on(), tiny, method, tmp_path / "broken", at=4, steps=STEPS)
    assert fit(again, tiny, method, tmp_path / "broken", steps=STEPS).resumed_from == 3
    assert same(adapter(again), adapter(whole))
    assert same(dense(method, again), dense(method, whole))


def test_an_adapter_of_other_options_is_refused(tiny: Path) -> None:
    method: Any = OPTIONS["lora"]
    kept = native_state(fresh(tiny, method), method)
    wider = method.but(r=6)
    with pytest.raises(UserError, match="do not fit method=lora with these options"):
        wider.go_on(fresh(tiny, wider), kept)
