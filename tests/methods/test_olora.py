"""O-LoRA: its penalty against a hand computation, frozen factors, and the sum of all tasks' products."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from hiplora.training.trainer import native_state
from tests.training.worker import OPTIONS, attached, fit, same

STEPS = 4


def olora(**changes: Any) -> Any:
    return OPTIONS["olora"].but(**changes)


def factors(model: Any) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """A and s B of what is trained now."""
    layers = ((name, module) for name, module in model.get_base_model().named_modules() if hasattr(module, "lora_A"))
    return {
        name: (m.lora_A["default"].weight.detach().clone(), 2 * m.lora_B["default"].weight.detach().clone())
        for name, m in layers
    }


def line(tiny: Path, tmp_path: Path, tasks: int, **changes: Any) -> tuple[Any, Any, list[Any]]:
    """The model that stands at the start of the last of some tasks, and the factors that the ones before left."""
    method, native, left = olora(**changes), None, []
    for task in range(tasks):
        model = attached(tiny, method)
        if native is not None:
            method.go_on(model, native)
        if task < tasks - 1:
            fit(model, tiny, method, tmp_path / str(task), steps=STEPS)
            left.append(factors(model))
            native = native_state(model, method)
    return method, model, left


def test_the_penalty_by_hand(tiny: Path, tmp_path: Path) -> None:
    method, model, (first, second) = line(tiny, tmp_path, 3)
    total = 0.0
    for name, (A, _) in factors(model).items():
        for old in (first[name][0], second[name][0]):
            for row in old.tolist():
                total += sum(abs(sum(a * b for a, b in zip(row, new, strict=True))) for new in A.tolist())
    penalty = method.extra_loss(model)
    assert float(penalty.detach()) == pytest.approx(0.5 * total, rel=1e-4)
    assert penalty > 1, "old factors are there from the second task on"
    penalty.backward()
    grads = {name: p.grad for name, p in model.named_parameters() if p.requires_grad}
    assert all((grad is not None) == ("lora_A" in name) for name, grad in grads.items())
    assert method.but(orthogonality=0.0).extra_loss(model) is None


def test_a_first_task_is_lora_and_has_no_penalty(tiny: Path, tmp_path: Path) -> None:
    method, lora = olora(), OPTIONS["lora"]
    ours, theirs = attached(tiny, method), attached(tiny, lora)
    assert method.extra_loss(ours) is None
    trained = fit(ours, tiny, method, tmp_path / "ours", steps=STEPS)
    assert same(trained.native["adapter"], fit(theirs, tiny, lora, tmp_path / "lora", steps=STEPS).native["adapter"])


def test_old_factors_are_frozen_and_the_update_is_the_sum_of_all_products(tiny: Path, tmp_path: Path) -> None:
    """What the model computes at the end is the backbone with every task's product added."""
    method, model, (first, second) = line(tiny, tmp_path, 3)
    before = method.state(model)
    assert [before["old"][name]["A"].shape[0] for name in first] == [8] * len(first), "its rank grows by r"
    for name, kept in before["old"].items():
        assert torch.equal(kept["A"], torch.cat([first[name][0], second[name][0]]))
        assert torch.equal(kept["B"], torch.cat([first[name][1], second[name][1]], dim=1))
    frozen = {name: {part: value.clone() for part, value in kept.items()} for name, kept in before["old"].items()}
    result = fit(model, tiny, method, tmp_path / "last", steps=STEPS)
    assert same(method.state(model)["old"], frozen), "bit for bit"
    assert [entry["penalty"] > 0 for entry in result.curve] == [True] * STEPS
    third = factors(model)
    updates = method.updates(model)
    for name, update in updates.items():
        total = sum(B @ A for A, B in (first[name], second[name], third[name]))
        torch.testing.assert_close(update.dense(), total, rtol=1e-5, atol=1e-6)
    ids = torch.arange(2, 20)[None]
    adapted = model(ids).logits.detach()
    method.save(model, tmp_path / "stored")
    deployed = method.deployed_parameters(model)
    assert deployed == 3 * sum(p.numel() for p in model.parameters() if p.requires_grad)

    bare = method.detach(model)
    plain = AutoModelForCausalLM.from_pretrained(tiny, dtype=torch.float32)
    assert same(dict(bare.state_dict()), dict(plain.state_dict()))
    assert torch.equal(bare(ids).logits, plain(ids).logits), "nothing of the old factors stays on the backbone"
    loaded = method.load(bare, tmp_path / "stored")
    torch.testing.assert_close(loaded(ids).logits, adapted, rtol=1e-4, atol=1e-4)
    assert method.deployed_parameters(loaded) == deployed
    with torch.no_grad():
        for name, update in updates.items():
            plain.get_submodule(name).weight += update.dense()
    torch.testing.assert_close(plain(ids).logits, adapted, rtol=1e-4, atol=1e-4)


def test_no_two_tasks_start_at_the_same_factors(tiny: Path, tmp_path: Path) -> None:
    """Under one seed: factors that start where the old ones did would be penalised for that alone."""
    starts = []
    for tasks in (1, 2, 3):
        _, model, _ = line(tiny, tmp_path / str(tasks), tasks)
        starts.append(factors(model))
    name = next(iter(starts[0]))
    A = [start[name][0] for start in starts]
    assert not any(torch.equal(one, other) for one, other in ((A[0], A[1]), (A[1], A[2]), (A[0], A[2])))
    assert all((start[name][1] == 0).all() for start in starts)
    assert A[1].abs().max() <= 1 / A[1].shape[1] ** 0.5, "the law of LoRA's own start"


def test_the_penalty_makes_the_subspaces_less_parallel(tiny: Path, tmp_path: Path) -> None:
    overlaps = {}
    for weight in (0.0, 0.5):
        method, model, _ = line(tiny, tmp_path / str(weight), 2, orthogonality=weight)
        fit(model, tiny, method, tmp_path / str(weight) / "last")
        overlaps[weight] = olora(orthogonality=1.0).extra_loss(model).detach()
    assert overlaps[0.5] < 0.5 * overlaps[0.0]
