"""Weights per adapter: where each operator applies them, by hand and through the command; what refuses them."""

from __future__ import annotations

import pytest
import torch

from hiplora.compose import compose
from hiplora.errors import UserError
from hiplora.merging import OPERATORS, configured, merge, operator_class
from hiplora.stages.sources import Merged
from tests.merging.makers import SHAPES, adapter, assert_same, dense, full, hip, one, seeded

WEIGHTED = [name for name in OPERATORS if "weights" in operator_class(name).model_fields]
KEEPS_ALL = {
    "ties": {"density": 1.0},
    "dare": {"drop": 0.0},
    "della": {"drop": 0.0, "window": 0.0, "rule": "linear"},
    "task_arithmetic": {"scale": 1.0},
}


def test_the_linear_operators_and_ties_and_the_drops_have_weights():
    assert WEIGHTED == ["addition", "task_arithmetic", "ties", "dare", "della"]


def test_sums_by_hand():
    tasks = one([[1.0, 2.0]], [[3.0, -6.0]])
    assert merge(tasks, "addition", weights=(1.0, -0.5)).updates["w"].dense().tolist() == [[-0.5, 5.0]]
    halved = merge(tasks, "task_arithmetic", weights=[1, -0.5])  # λ is 1/T
    assert halved.updates["w"].dense().tolist() == [[-0.25, 2.5]]
    assert halved.report["weights"] == (1.0, -0.5)
    whole = merge(tasks, "task_arithmetic", scale=2.0, weights=(1.0, -0.5))
    assert whole.updates["w"].dense().tolist() == [[-1.0, 10.0]]


def test_ties_by_hand_trims_by_the_updates_own_magnitudes_and_elects_among_the_weighted_ones():
    tasks = one([[5.0, -4.0, 0.1, 3.0]], [[1.0, 6.0, 0.2, 0.1]], [[7.0, 8.0, 0.3, -3.0]])
    merged = merge(tasks, "ties", density=0.5, weights=(1.0, 2.0, -1.0))
    # Kept: (5, -4), (1, 6), (7, 8). Weighted: 5, 2, -7 cancel: nothing. -4, 12, -8 cancel too.
    assert merged.updates["w"].dense().tolist() == [[0.0, 0.0, 0.0, 0.0]]
    merged = merge(tasks, "ties", density=0.5, scale=2.0, weights=(1.0, 2.0, -0.5))
    # 5, 2, -3.5: the first two agree, (5 + 2) / 2. -4, 12, -4: the 12 alone. Both times λ = 2.
    assert merged.updates["w"].dense().tolist() == [[7.0, 24.0, 0.0, 0.0]]
    assert merged.report["thresholds"] == [4.0, 1.0, 7.0]


@pytest.mark.parametrize("rule", ["linear", "ties"])
@pytest.mark.parametrize("name", ["dare", "della"])
def test_drops_are_drawn_for_the_updates_themselves_and_weighted_after(name, rule):
    tasks, weights = [adapter(1), adapter(2)], (3.0, -0.5)
    merged = dense(merge(tasks, name, rule=rule, weights=weights, generator=seeded()).updates)
    # What is dropped depends on the adapter's position: each is met alone at its own, the other one at 0.
    zero = {n: u.scaled(0) for n, u in tasks[0].items()}
    first, second = (
        dense(merge(pair, name, rule="linear", generator=seeded()).updates)
        for pair in ([tasks[0], zero], [zero, tasks[1]])
    )
    for n in SHAPES:
        left = torch.stack([weights[0] * first[n], weights[1] * second[n]])
        if rule == "linear":
            expected = left.sum(dim=0)
        else:
            agree = left * left.sum(dim=0) > 0
            expected = (left * agree).sum(dim=0) / agree.sum(dim=0).clamp(min=1)
        torch.testing.assert_close(merged[n], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", WEIGHTED)
def test_weights_of_one_adapter_scale_it_and_ones_change_nothing(name):
    options = KEEPS_ALL.get(name, {})
    for task in (adapter(1), hip(1), full(1)):
        scaled = merge([task], name, weights=(-0.5,), generator=seeded(), **options).updates
        assert_same(dense(scaled), {n: -0.5 * u.dense() for n, u in task.items()}, rtol=1e-4, atol=1e-5)
    tasks = [adapter(1), hip(2), adapter(3)]
    ones = merge(tasks, name, weights=(1.0, 1.0, 1.0), generator=seeded()).updates
    assert_same(dense(ones), dense(merge(tasks, name, generator=seeded()).updates), rtol=0, atol=0)


def test_an_adapter_of_weight_0_adds_nothing_and_no_rank():
    merged = merge([adapter(1), adapter(2)], "addition", weights=(0.0, 2.0)).updates
    assert_same(dense(merged), {n: 2 * u.dense() for n, u in adapter(2).items()})
    assert {update.rank for update in merged.values()} == {2}


@pytest.mark.parametrize("name", WEIGHTED)
def test_weights_without_a_sense_are_refused(name):
    for weights, sentence in (
        ((1.0,), r"merge\.weights=\[1\] is for 1 adapters, but there are 2; give one number for each"),
        ((0.0, 0.0), r"merge\.weights=\[0,0\] merges to nothing"),
        ((), r"merge\.weights=\[\] merges to nothing"),
        ((1.0, float("nan")), r"merge\.weights\.1=nan must be a finite number"),
        (2.0, r"merge\.weights=2 must be a list, e.g. \[1,-0.5\]"),
    ):
        with pytest.raises(UserError, match=sentence):
            merge([adapter(1), adapter(2)], name, weights=weights, generator=seeded())


@pytest.mark.parametrize("name", sorted(set(OPERATORS) - set(WEIGHTED)))
def test_the_others_refuse_weights_by_name(name):
    with pytest.raises(UserError, match=f"merge={name} has no option weights"):
        merge([adapter(1), adapter(2)], name, weights=(1.0, 2.0))


@pytest.mark.parametrize("name", WEIGHTED)
def test_no_weights_leave_the_identity_as_it_was(name):
    plain = configured(name)
    assert "weights" not in plain.identity()
    assert configured(name, weights=None).identity() == plain.identity()
    assert configured(name, weights=[1, -0.5]).identity() == plain.identity() | {"weights": [1.0, -0.5]}


def test_the_suite_refuses_weights_that_are_not_one_for_each_adapter_of_an_instance():
    pytest.importorskip("hydra", reason="needs the suite")
    config = compose(["pipeline=merge", "merge=ties", "merge.weights=[1,-0.5]"])
    assert config.merge.weights == (1.0, -0.5)
    train = next(iter(compose(["method=lora"]).stages())).stage
    Merged(adapters=(train, train), operator=config.merge).check()
    with pytest.raises(UserError, match=r"merge\.weights=\[1,-0\.5\] is for 2 adapters, but there are 3"):
        Merged(adapters=(train, train, train), operator=config.merge).check()
    with pytest.raises(UserError, match=r"merge\.weights is not a field"):
        compose(["pipeline=merge", "merge=tsvm", "+merge.weights=[1,-0.5]"])
