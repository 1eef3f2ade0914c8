"""What PEFT leaves to the training loop: the orthogonality term, the allocation, the final ranks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from hiplora.adapters.reading import read_adapter
from hiplora.errors import UserError
from tests.training.worker import OPTIONS, SETUP, adapter, attached, fit, interrupted_fit, training

ADALORA: Any = OPTIONS["adalora"]


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
    assert ADALORA.but(orthogonality=0.0).extra_loss(model) is None


def test_training_ends_at_the_budget(tiny: Path, tmp_path: Path) -> None:
    model = attached(tiny, ADALORA)
    fit(model, tiny, ADALORA, tmp_path / "checkpoints")
    ranks = [update.rank for update in ADALORA.updates(model).values()]
    assert sum(ranks) == len(ranks) * ADALORA.target_r
    assert len(set(ranks)) > 1  # ranks were allocated, not dealt
    ADALORA.save(model, tmp_path / "saved")
    model.save_pretrained(str(tmp_path / "pefts"))
    before = {name: update.dense() for name, update in ADALORA.updates(model).items()}
    deployed = ADALORA.deployed_parameters(model)
    loaded = ADALORA.load(ADALORA.detach(model), tmp_path / "saved")
    assert ADALORA.deployed_parameters(loaded) == deployed
    from_folder = read_adapter(str(tmp_path / "pefts")).updates
    assert from_folder.keys() == before.keys()
    for name, update in ADALORA.updates(loaded).items():
        torch.testing.assert_close(update.dense(), before[name])
        torch.testing.assert_close(from_folder[name].dense(), before[name])


def test_a_matrix_that_lost_all_its_triplets(tiny: Path, tmp_path: Path) -> None:
    model = attached(tiny, ADALORA, dtype=torch.bfloat16)
    layers = [module for module in model.modules() if hasattr(module, "lora_E")]
    with torch.no_grad():
        for layer in layers[1:]:
            layer.lora_E["default"].normal_()
    updates = ADALORA.updates(model)
    empty, *others = (update.norm() for update in updates.values())
    assert empty == 0
    assert min(others) > 0
    ADALORA.save(model, tmp_path)
    loaded = ADALORA.updates(ADALORA.load(ADALORA.detach(model), tmp_path))
    for name, update in updates.items():
        torch.testing.assert_close(loaded[name].dense(), update.dense())


def test_the_final_ranks_survive_a_restart(tiny: Path, tmp_path: Path) -> None:
    """Interrupted after the last allocation: from there on the ranks are only kept, never worked out again."""
    whole, broken = (attached(tiny, ADALORA) for _ in range(2))
    fit(whole, tiny, ADALORA, tmp_path / "whole")
    interrupted_fit(broken, tiny, ADALORA, tmp_path / "broken", at=8)
    again = attached(tiny, ADALORA)
    assert fit(again, tiny, ADALORA, tmp_path / "broken").resumed_from == 6
    assert all(torch.equal(value, adapter(again)[name]) for name, value in adapter(whole).items())


def test_too_few_steps_are_told() -> None:
    with pytest.raises(UserError, match=r"training\.steps=3 leaves AdaLoRA no step to prune in"):
        ADALORA.peft_config(setup=replace(SETUP, training=training(steps=3)))


def test_a_further_training_allocates_afresh_and_ends_at_the_budget(tiny: Path, tmp_path: Path) -> None:
    first, model = attached(tiny, ADALORA), attached(tiny, ADALORA)
    native = fit(first, tiny, ADALORA, tmp_path / "first").native
    values = {name: value for name, value in native["adapter"].items() if "lora_E" in name}
    pruned = {name: (value == 0).flatten() for name, value in values.items()}
    assert any(mask.any() for mask in pruned.values())

    ADALORA.go_on(model, native)
    allocator = model.base_model.rankallocator
    assert (allocator.ipt, allocator.exp_avg_ipt, allocator.exp_avg_unc) == ({}, {}, {})
    assert model.peft_config["default"].rank_pattern is None
    assert all(torch.equal(value, adapter(model)[name]) for name, value in values.items())

    fit(model, tiny, ADALORA, tmp_path / "second", seed=43)
    left = {name: (value != 0).flatten() for name, value in adapter(model).items() if "lora_E" in name}
    assert any((left[name] & mask).any() for name, mask in pruned.items()), "what was pruned may grow again"
    updates = ADALORA.updates(model)
    assert sum(update.rank for update in updates.values()) == len(updates) * ADALORA.target_r
    model.save_pretrained(str(tmp_path / "pefts"))
    for name, update in read_adapter(str(tmp_path / "pefts")).updates.items():
        torch.testing.assert_close(update.dense(), updates[name].dense())
