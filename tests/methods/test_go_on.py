"""Going on from an adapter: from its folder and in memory the same, for every method, bit for bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
from peft import PeftConfig, PeftModel, VeraConfig
from peft.tuners.vera import VeraLayer

from hiplora.errors import UserError
from hiplora.methods.base import Method, Setup
from hiplora.stages.train import NATIVE, save, tensors_digest
from hiplora.training.trainer import native_state
from hiplora.updates import Dense, Update
from tests.tiny import tiny_llama_folder
from tests.training.worker import OPTIONS, adapter, attached, fit, same

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


METHODS: dict[str, Method] = {**OPTIONS, "vera": Vera(name="vera", r=4)}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llama_folder(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HIPLORA_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


def fresh(tiny: Path, method: Method, dtype: torch.dtype = torch.bfloat16) -> Any:
    return attached(tiny, method, dtype=dtype, steps=STEPS)


def stored(tiny: Path, method: Method, folder: Path, dtype: torch.dtype = torch.bfloat16) -> Any:
    """The native state that a training of five steps leaves in the folder of its adapter, read from there."""
    model = fresh(tiny, method, dtype)
    native = fit(model, tiny, method, folder / "first", steps=STEPS).native
    save(method, model, folder / "adapter", native=native, tensors=tensors_digest(native))
    return torch.load(folder / "adapter" / NATIVE, weights_only=True)


def dense(method: Method, model: Any) -> dict[str, torch.Tensor]:
    return {name: update.dense() for name, update in method.updates(model).items()}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize("name", METHODS)
def test_from_the_folder_and_in_memory_it_goes_on_to_the_same_bits(
    tiny: Path, tmp_path: Path, name: str, dtype: torch.dtype
) -> None:
    """In memory, the model that was trained goes on as it is: nothing is rebuilt, finished or copied."""
    method = METHODS[name]
    held = fresh(tiny, method, dtype)
    with patch.object(type(method), "finish", lambda self, model: None):
        fit(held, tiny, method, tmp_path / "held", steps=STEPS)
    between = adapter(held)
    method.restart(held)
    in_memory = fit(held, tiny, method, tmp_path / "further", steps=STEPS, seed=43)

    kept = stored(tiny, method, tmp_path, dtype)
    assert same(kept["adapter"], between)
    again = fresh(tiny, method, dtype)
    method.go_on(again, kept)
    assert same(adapter(again), between)
    from_folder = fit(again, tiny, method, tmp_path / "second", steps=STEPS, seed=43)

    assert from_folder == in_memory.__class__(**{**vars(in_memory), **times(from_folder)})
    assert same(from_folder.native, in_memory.native)
    assert not same(from_folder.native["adapter"], between)
    assert same(adapter(again), adapter(held))
    assert same(dense(method, again), dense(method, held))


def times(result: Any) -> dict[str, Any]:
    return {name: getattr(result, name) for name in ("seconds", "tokens_per_second")}


@pytest.mark.parametrize("name", METHODS)
def test_what_went_on_is_saved_loaded_and_taken_off_as_any_adapter(tiny: Path, tmp_path: Path, name: str) -> None:
    method = METHODS[name]
    kept = stored(tiny, method, tmp_path)
    model = fresh(tiny, method)
    before = {key: value.clone() for key, value in method.detach(model).state_dict().items()}
    model = fresh(tiny, method)
    method.go_on(model, kept)
    fit(model, tiny, method, tmp_path / "second", steps=STEPS, seed=43)
    updates = dense(method, model)
    method.save(model, tmp_path / "child")
    backbone = method.detach(model)
    assert same(backbone.state_dict(), before)
    loaded = method.load(backbone, tmp_path / "child")
    for key, update in dense(method, loaded).items():
        torch.testing.assert_close(update, updates[key], rtol=1e-4, atol=1e-5)
    assert same(method.detach(loaded).state_dict(), before)


@pytest.mark.parametrize("name", METHODS)
def test_a_resumed_training_that_went_on_ends_with_the_same_bits(tiny: Path, tmp_path: Path, name: str) -> None:
    """A checkpoint is of the second training; the adapter below it is put back first, as a run does."""
    method = METHODS[name]
    kept = stored(tiny, method, tmp_path)

    def went_on() -> Any:
        model = fresh(tiny, method)
        method.go_on(model, kept)
        return model

    whole, again = went_on(), went_on()
    fit(whole, tiny, method, tmp_path / "whole", steps=STEPS)
    after_step = type(method).after_step

    def stop(self: Any, peft_model: Any, step: int) -> None:
        if step == 4:
            raise KeyboardInterrupt
        after_step(self, peft_model, step)

    with patch.object(type(method), "after_step", stop), pytest.raises(KeyboardInterrupt):
        fit(went_on(), tiny, method, tmp_path / "broken", steps=STEPS)
    assert fit(again, tiny, method, tmp_path / "broken", steps=STEPS).resumed_from == 3
    assert same(adapter(again), adapter(whole))
    assert same(dense(method, again), dense(method, whole))


def test_an_adapter_of_other_options_is_refused(tiny: Path) -> None:
    method: Any = OPTIONS["lora"]
    kept = native_state(fresh(tiny, method), method)
    wider = method.but(r=6)
    with pytest.raises(UserError, match="not those of a method=lora with these options"):
        wider.go_on(fresh(tiny, wider), kept)
