"""Pico and its controls against the dense formula, and where each of them must do nothing."""

from __future__ import annotations

import pytest
import torch

from hiplora.merging import merge
from hiplora.merging.calibration import shrink
from hiplora.updates import LowRank
from tests.merging.makers import SHAPES, adapter, assert_same, dense, full, hip, seeded


def pico_reference(updates: list[LowRank]) -> list[torch.Tensor]:
    """I + U diag(a − 1) Uᵀ formed in full, applied to every ΔW_t."""
    stack = torch.cat([u.B for u in updates], dim=1).double()
    U, S, _ = torch.linalg.svd(stack, full_matrices=False)
    a = 1 / (1 + (len(updates) - 1) * S**2 / (S**2).sum())
    operator = torch.eye(len(U), dtype=torch.float64) + U @ torch.diag(a - 1) @ U.T
    return [operator @ u.dense().double() for u in updates]


def test_pico_with_addition_equals_the_dense_formula():
    tasks = [adapter(1, 1), adapter(2, 2), adapter(3, 3)]
    merged = merge(tasks, "addition", calibration="pico")
    for name in SHAPES:
        total = sum(pico_reference([t[name] for t in tasks]))
        norm = sum(t[name].dense().norm() for t in tasks) / 3
        expected = total / total.norm() * norm
        torch.testing.assert_close(merged.updates[name].dense().double(), expected, rtol=1e-4, atol=1e-5)
    assert 0 < merged.report["mean_largest_collision"] < 1


def test_pico_by_hand_halves_what_two_adapters_share():
    b = torch.tensor([[1.0], [0.0]])
    shrunk, collision = shrink([LowRank(b, torch.tensor([[1.0, 0.0]])), LowRank(b, torch.tensor([[0.0, 1.0]]))])
    # One direction holds all the energy: c = 1, a = 1 / (1 + 1) = 1/2.
    assert collision.tolist() == pytest.approx([1.0])
    assert all(torch.allclose(x.B, b / 2) for x in shrunk)


@pytest.mark.parametrize("calibration", ["pico", "rescale", "random"])
@pytest.mark.parametrize("make", [adapter, hip, full])
def test_calibrations_of_one_adapter_change_nothing(calibration, make):
    task = make(1)
    merged = merge([task], "addition", calibration=calibration, generator=seeded()).updates
    assert_same(dense(merged), dense(task), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("calibration", ["pico", "rescale", "random"])
@pytest.mark.parametrize("operator", ["task_arithmetic", "ties", "dare", "tsvm", "core_space"])
def test_the_merged_norm_is_the_mean_of_the_original_ones(calibration, operator):
    tasks = [adapter(1), hip(2)]
    merged = merge(tasks, operator, calibration=calibration, generator=seeded()).updates
    for name, update in merged.items():
        assert update.norm() == pytest.approx(sum(t[name].norm() for t in tasks) / 2, rel=1e-4)


def test_what_is_drawn_for_a_matrix_depends_on_its_name_alone():
    tasks = [adapter(1), hip(2)]
    merged = merge(tasks, "addition", calibration="random", generator=seeded()).updates
    backwards = [{name: task[name] for name in reversed(task)} for task in tasks]
    again = merge(backwards, "addition", calibration="random", generator=seeded()).updates
    assert_same(dense(again), dense(merged))


@pytest.mark.parametrize("operator", ["dare", "della"])
def test_an_operator_that_drops_has_the_same_masks_under_every_calibration(operator):
    masks = [
        merge([adapter(1), adapter(2)], operator, calibration=c, generator=seeded()).updates["a.q_proj"].dense() == 0
        for c in ("none", "rescale", "pico", "random")
    ]
    assert 0 < masks[0].float().mean() < 1
    if operator == "dare":  # DELLA's chances follow the sizes of the entries, which a calibration changes
        assert all(torch.equal(mask, masks[0]) for mask in masks)
    else:
        assert all((mask == masks[0]).float().mean() > 0.9 for mask in masks)


def test_rescale_keeps_the_direction_of_the_plain_merge_and_random_does_not_follow_pico():
    tasks = [adapter(1), adapter(2)]
    plain, rescale, pico, random = (
        merge(tasks, "addition", calibration=c, generator=seeded()).updates["a.q_proj"].dense()
        for c in ("none", "rescale", "pico", "random")
    )
    torch.testing.assert_close(rescale / rescale.norm(), plain / plain.norm())
    assert torch.dist(random, pico) > 0.01 * pico.norm()


def test_a_form_that_is_not_ba_is_calibrated_through_its_thin_svd():
    task = hip(1)["a.q_proj"]
    u, s, vh = torch.linalg.svd(task.dense())
    balanced = LowRank(u[:, :5] * s[:5], vh[:5])
    left, right = (shrink([x, hip(2)["a.q_proj"]])[0][0].dense() for x in (task, balanced))
    torch.testing.assert_close(left, right, rtol=1e-4, atol=1e-5)
