"""What configuration and files can tell is told before a model is loaded."""

from __future__ import annotations

from pathlib import Path

import pytest

from hiplora import models
from hiplora.compose import compose
from hiplora.errors import UserError
from hiplora.models import Model
from tests.pipelines.conftest import Run
from tests.tiny import tiny_llama_folder


@pytest.fixture(autouse=True)
def nothing_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    for module, name in ((models, "load"), (models.gguf, "convert")):
        monkeypatch.setattr(module, name, lambda *_, **__: pytest.fail("loaded"))


@pytest.mark.parametrize("option", ["evaluation.gsm8k_max_new_tokens", "evaluation.code_max_new_tokens"])
def test_answers_that_leave_no_position_for_a_prompt(configured, option: str) -> None:
    """The tiny backbone has 512 positions."""
    words = ["method=lora", "evaluation.code_execution=unsafe"]
    with pytest.raises(UserError, match=rf"{option}=512 leaves no position for a prompt: the backbone tiny has 512"):
        Run(configured(*words, f"{option}=512"))
    with pytest.raises(pytest.fail.Exception, match="loaded"):
        Run(configured(*words, f"{option}=511"))


def test_a_benchmark_that_is_not_asked_to_write_has_no_length(configured) -> None:
    with pytest.raises(pytest.fail.Exception, match="loaded"):
        Run(configured("method=lora", "evaluation.code_max_new_tokens=9999"))


def test_positions_are_told_by_the_files_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HIPLORA_CACHE", str(tmp_path / "cache"))
    packaged = compose([]).model
    assert models.positions(packaged) == 8192
    folder = packaged.but(source="folder", path=str(tiny_llama_folder(tmp_path)))
    assert models.positions(folder) == 512
    monkeypatch.setattr(models.files, "cached_file", lambda *_, **__: tmp_path / "config.json")
    assert models.positions(on_the_hub(packaged)) == 512


def on_the_hub(model: Model) -> Model:
    return model.but(source="hub", path="nobody/nothing", revision=40 * "a")


def test_a_backbone_that_is_not_in_the_cache_of_an_offline_machine(configured, monkeypatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    config = configured("method=lora")
    assert models.positions(on_the_hub(config.model)) is None
    with pytest.raises(UserError, match=r"nobody/nothing@a+ is not in the Hub's cache, and this machine is offline"):
        Run(config.but(model=on_the_hub(config.model)))


def test_data_that_is_not_in_the_cache_of_an_offline_machine(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    places = [f"outputs_dir={tmp_path}/outputs", f"results_dir={tmp_path}/results"]
    with pytest.raises(UserError, match=r"openai/gsm8k could not be loaded from the Hub .*data=local"):
        Run(compose(["scale=paper", "model=smollm2", "data=hub", *places]))
    assert not list(tmp_path.glob("outputs/locks/*"))
