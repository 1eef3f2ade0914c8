"""What PEFT leaves to the training loop: the orthogonality term, the allocation, the final ranks."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from hiplora.errors import UserError
from hiplora.merging.reader import read_adapter
from tests.tiny import tiny_llama_folder
from tests.training.worker import CONFIG, OPTIONS, attached, fit, training

ADALORA: Any = OPTIONS["adalora"]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llama_folder(tmp_path_factory.mktemp("tiny"))


def test_orthogonality_is_the_term_peft_adds_to_its_own_loss(tiny: Path) -> None:
    model = attached(tiny, ADALORA).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.normal_(std=0.1)
    ids = torch.arange(2, 20)[None]
    with_term = model(ids, labels=ids).loss
    model.peft_config["default"].orth_reg_weight = 0
    without = model(ids, labels=ids).loss
    torch.testing.assert_close(ADALORA.extra_loss(model), with_term - without, rtol=1e-4, atol=1e-4)
    assert replace(ADALORA, orthogonality=0.0).extra_loss(model) is None


def test_training_ends_at_the_budget(tiny: Path, tmp_path: Path) -> None:
    model = attached(tiny, ADALORA)
    fit(model, tiny, ADALORA, tmp_path / "checkpoints", steps=12)
    ranks = [update.rank for update in ADALORA.updates(model).values()]
    assert sum(ranks) == len(ranks) * ADALORA.target_r
    assert len(set(ranks)) > 1  # ranks were allocated, not dealt
    ADALORA.save(model, tmp_path / "saved")
    before = {name: update.dense() for name, update in ADALORA.updates(model).items()}
    deployed = ADALORA.deployed_parameters(model)
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        loaded = ADALORA.load(ADALORA.detach(model), tmp_path / "saved")
    assert ADALORA.deployed_parameters(loaded) == deployed
    from_folder = read_adapter(str(tmp_path / "saved")).updates
    assert from_folder.keys() == before.keys()
    for name, update in ADALORA.updates(loaded).items():
        torch.testing.assert_close(update.dense(), before[name])
        torch.testing.assert_close(from_folder[name].dense(), before[name])


def test_too_few_steps_are_told() -> None:
    config: Any = SimpleNamespace(model=CONFIG.model, training=training(steps=3))
    with pytest.raises(UserError, match=r"training\.steps=3 leaves AdaLoRA no step to prune in"):
        replace(ADALORA, tinit=0.0, tfinal=0.9).peft_config(config=config)
