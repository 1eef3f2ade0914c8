"""Every operator on cases computed by hand, and the random ones on what they keep."""

from __future__ import annotations

import math

import pytest
import torch

from hiplora.merging import merge
from hiplora.updates import Dense, LowRank
from tests.merging.makers import assert_same, dense, one, seeded


def test_addition_and_task_arithmetic_by_hand():
    tasks = one([[1.0, 2.0]], [[3.0, -6.0]])
    assert merge(tasks, "addition").updates["w"].dense().tolist() == [[4.0, -4.0]]
    assert merge(tasks, "task_arithmetic").updates["w"].dense().tolist() == [[2.0, -2.0]]
    assert merge(tasks, "task_arithmetic", scale=0.25).updates["w"].dense().tolist() == [[1.0, -1.0]]


def test_ties_by_hand_trims_elects_and_averages():
    tasks = one([[5.0, -4.0, 0.1, 3.0]], [[1.0, 6.0, 0.2, 0.1]], [[7.0, 8.0, 0.3, -3.0]])
    # density 0.5 keeps (5,-4), (1,6) and (7,8); column 1: 5, 1, 7 agree; column 2: 6 and 8 outvote -4.
    merged = merge(tasks, "ties", density=0.5, scale=2.0)
    torch.testing.assert_close(merged.updates["w"].dense(), 2.0 * torch.tensor([[13 / 3, 7.0, 0.0, 0.0]]))
    assert merged.report["thresholds"] == [4.0, 1.0, 7.0]


def test_ties_threshold_is_global_by_default_and_per_matrix_as_an_option():
    tasks = [{"big": Dense(torch.tensor([[8.0, 6.0]])), "small": Dense(torch.tensor([[2.0, 1.0]]))}]
    everywhere = dense(merge(tasks, "ties", density=0.5).updates)
    assert_same(everywhere, {"big": torch.tensor([[8.0, 6.0]]), "small": torch.zeros(1, 2)})
    per_matrix = dense(merge(tasks, "ties", density=0.5, threshold="matrix").updates)
    assert_same(per_matrix, {"big": torch.tensor([[8.0, 0.0]]), "small": torch.tensor([[2.0, 0.0]])})


def test_tsvm_by_hand_keeps_orthogonal_updates_and_averages_repeated_ones():
    eye = torch.eye(4)
    first = {"w": LowRank(3.0 * eye[:, :1], eye[:1])}
    second = {"w": LowRank(5.0 * eye[:, 1:2], eye[1:2])}
    expected = torch.diag(torch.tensor([3.0, 5.0, 0.0, 0.0]))
    torch.testing.assert_close(merge([first, second], "tsvm").updates["w"].dense(), expected)
    # The polar factor of two equal columns u, u is u/√2, u/√2: both sides give back the update once.
    torch.testing.assert_close(merge([first, first], "tsvm").updates["w"].dense(), first["w"].dense())


def test_tsvm_caps_the_number_of_triplets():
    eye = torch.eye(4)
    full = {"w": LowRank(eye * torch.tensor([4.0, 3.0, 2.0, 1.0]), eye)}
    merged = merge([full, {"w": LowRank(torch.zeros(4, 1), torch.zeros(1, 4))}], "tsvm").updates["w"]
    torch.testing.assert_close(merged.dense(), torch.diag(torch.tensor([4.0, 3.0, 0.0, 0.0])))


def test_knots_by_hand_on_updates_with_one_output_direction():
    u = torch.tensor([[1.0], [0.0]])
    tasks = [{"w": LowRank(u, torch.tensor([row]))} for row in ([4.0, -1.0, 0.0], [2.0, 3.0, 0.0])]
    # S V_t are the rows themselves (up to one common sign): 4 and 2 agree, 3 outvotes -1.
    merged = merge(tasks, "knots", density=1.0).updates["w"].dense()
    torch.testing.assert_close(merged, torch.tensor([[3.0, 3.0, 0.0], [0.0, 0.0, 0.0]]))


@pytest.mark.parametrize("rule", ["ties", "tsvm", "addition"])
def test_core_space_by_hand_on_disjoint_supports(rule):
    eye = torch.eye(3)
    tasks = [{"w": LowRank(size * eye[:, i : i + 1], eye[i : i + 1])} for i, size in enumerate((2.0, 5.0))]
    merged = merge(tasks, "core_space", rule=rule, density=1.0).updates["w"].dense()
    torch.testing.assert_close(merged, torch.diag(torch.tensor([2.0, 5.0, 0.0])))


def rotation(angle: float) -> torch.Tensor:
    """Its columns are the axes of a plane that is turned by the angle."""
    return torch.tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])


def test_core_space_by_hand_trims_in_the_basis_of_the_raw_stacks():
    first = {"w": LowRank(torch.tensor([[1.0], [0.0]]), torch.tensor([[1.0, 1.0]]))}
    second = {"w": LowRank(torch.tensor([[2.0], [1.0]]), torch.tensor([[0.0, 3.0]]))}
    # B_2 and A_2 are longer and turn both bases towards them. The columns of B are (1, 0) and (2, 1), so BBᵀ is
    # [[5, 2], [2, 1]], and tan 2θ = 2·2 / (5 - 1). The rows of A are (1, 1) and (0, 3), so AᵀA is [[1, 1], [1, 10]],
    # and tan 2θ = 2·1 / (1 - 10), of which the long axis is the one near 90°.
    left, right = rotation(math.pi / 8), rotation(math.pi / 2 - math.atan(2 / 9) / 2)
    cores = [left.T @ task["w"].dense() @ right for task in (first, second)]
    by_hand = [torch.tensor([[1.0191, -0.8176], [-0.4221, 0.3386]]), torch.tensor([[6.6513, 0.7301], [0.4727, 0.0519]])]
    torch.testing.assert_close(cores, by_hand, rtol=0, atol=1e-4)
    # Three of the four entries of each core are kept. 1.02 and 6.65 agree, -0.82 outvotes 0.73, 0.47 outvotes -0.42.
    elected = torch.tensor([[(1.0191 + 6.6513) / 2, -0.8176], [0.4727, 0.0]])
    merged = merge([first, second], "core_space", density=0.75).updates["w"].dense()
    torch.testing.assert_close(merged, left @ elected @ right.T, rtol=0, atol=1e-4)


def test_dare_keeps_about_one_minus_p_rescaled_and_is_unbiased():
    ones = one([[1.0] * 400] * 50)
    merged = merge(ones, "dare", drop=0.75, generator=seeded()).updates["w"].dense()
    assert set(merged.flatten().tolist()) == {0.0, 4.0}
    assert abs(merged.mean().item() - 1.0) < 0.05


@pytest.mark.parametrize("options", [{"operator": "dare"}, {"operator": "della", "window": 0.0}])
def test_what_is_dropped_of_an_adapter_or_matrix_says_nothing_about_another(options):
    """With one mask for both adapters or matrices a quarter of the entries would be kept in both."""
    tasks = [{name: Dense(torch.full((100, 200), size)) for name in ("v", "w")} for size in (1.0, 10.0)]
    merged = dense(merge(tasks, **options, drop=0.75, rule="linear", generator=seeded()).updates)
    assert all(set(of.flatten().tolist()) == {0, 4, 40, 44} for of in merged.values())
    both = [(of == 44).float().mean().item() for of in merged.values()]
    both += [((merged["v"] % 40 == 4) & (merged["w"] % 40 == 4)).float().mean().item()]
    assert both == pytest.approx([1 / 16] * 3, abs=0.01)


def test_della_drops_small_entries_more_often():
    from hiplora.merging.della import drop_probabilities

    p = drop_probabilities(torch.tensor([[0.1, -3.0, 2.0], [5.0, 4.0, 0.0]]), 0.5, 0.4)
    torch.testing.assert_close(p, torch.tensor([[0.7, 0.3, 0.5], [0.3, 0.5, 0.7]]))
    ladder = one([list(range(1, 101))] * 500)
    merged = merge(ladder, "della", drop=0.5, window=0.8, generator=seeded()).updates["w"].dense()
    kept = (merged != 0).float().mean(dim=0)
    assert kept[:10].mean() < 0.2 < 0.8 < kept[-10:].mean()
    torch.testing.assert_close(merged.mean(dim=0).sum(), torch.tensor(5050.0), rtol=0.05, atol=0)
