"""What holds for every operator: boundaries, order, dtypes and seeds, and what is held in memory."""

from __future__ import annotations

import pytest
import torch

from hiplora.errors import UserError
from hiplora.merging import OPERATORS, Streamed, merge, operator_class
from hiplora.updates import Dense, LowRank, zero
from tests.merging.makers import SHAPES, adapter, assert_same, dense, full, hip, seeded

DENSE = [name for name in OPERATORS if operator_class(name).accepts_dense]
DETERMINISTIC = [name for name in OPERATORS if not operator_class(name).draws]
UNTOUCHED = {
    "ties": {"density": 1.0},
    "knots": {"density": 1.0},
    "core_space": {"density": 1.0},
    "dare": {"drop": 0.0},
    "della": {"drop": 0.0, "window": 0.0},
}


@pytest.mark.parametrize("name", OPERATORS)
@pytest.mark.parametrize("rank", [1, 3])
def test_one_adapter_without_trimming_comes_back(name, rank):
    task = adapter(1, rank)
    merged = merge([task], name, generator=seeded(), **UNTOUCHED.get(name, {})).updates
    assert_same(dense(merged), dense(task), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", OPERATORS)
def test_zero_updates_merge_to_zero_and_one_zero_update_changes_no_shape(name):
    zero = {n: LowRank(torch.zeros(m, 2), torch.zeros(2, k)) for n, (m, k) in SHAPES.items()}
    assert all(not u.any() for u in dense(merge([zero, zero], name, generator=seeded()).updates).values())
    beside = dense(merge([zero, adapter(1)], name, generator=seeded(), **UNTOUCHED.get(name, {})).updates)
    assert all(torch.isfinite(x).all() and x.any() for x in beside.values())


@pytest.mark.parametrize("name", OPERATORS)
@pytest.mark.parametrize("calibration", ["none", "pico", "random"])
def test_a_stand_in_of_rank_0_counts_as_an_adapter_and_adds_no_rank(name, calibration):
    stand_in, zeros = {n: zero(shape) for n, shape in SHAPES.items()}, LowRank(torch.zeros(12, 1), torch.zeros(1, 10))
    options = {"calibration": calibration, **UNTOUCHED.get(name, {})}
    beside = merge([stand_in, adapter(1)], name, generator=seeded(), **options).updates
    assert all(isinstance(u, Dense) or u.factors().rank <= 2 for u in beside.values())
    if calibration != "random":  # as many random directions are drawn as there are columns
        like = {"a.q_proj": zeros, "a.v_proj": LowRank(zeros.B[:6], zeros.A), "b.q_proj": zeros}
        expected = merge([like, adapter(1)], name, generator=seeded(), **options).updates
        assert_same(dense(beside), dense(expected), rtol=1e-4, atol=1e-5)
    nothing = dense(merge([stand_in, stand_in], name, generator=seeded(), **options).updates)
    assert {n: tuple(x.shape) for n, x in nothing.items()} == SHAPES
    assert not any(x.any() for x in nothing.values())


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("ties", {"density": 1e-9}),
        ("knots", {"density": 1e-9}),
        ("core_space", {"density": 1e-9}),
        ("dare", {"drop": 0.999999999}),
        ("della", {"drop": 0.999999, "window": 0.0}),
    ],
)
def test_a_merge_that_leaves_nothing_says_so_once_all_of_it_was_seen(name, options):
    merged = merge([adapter(1), adapter(2)], name, generator=seeded(), **options)
    assert not any(x.any() for x in dense(merged.updates).values())
    assert merged.report["zero"] is True
    some = merge([adapter(1), {n: u.scaled(0) for n, u in adapter(2).items()}], "addition")
    assert "zero" not in some.report


@pytest.mark.parametrize("name", DETERMINISTIC)
def test_order_of_adapters_does_not_matter_and_ranks_may_differ(name):
    tasks = [adapter(1, 1), adapter(2, 2), adapter(3, 3)]
    forward, backward = (merge(order, name).updates for order in (tasks, tasks[::-1]))
    assert_same(dense(forward), dense(backward), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", OPERATORS)
def test_dtypes_and_forms_mix_and_results_are_float32(name):
    tasks = [adapter(1), {n: u.to(torch.float64) for n, u in adapter(2).items()}, hip(3)]
    rounded = {n: u.to(torch.bfloat16) for n, u in adapter(4).items()}
    merged = merge([*tasks, rounded], name, generator=seeded())
    assert {u.dense().dtype for u in merged.updates.values()} == {torch.float32}
    assert {n: u.shape for n, u in merged.updates.items()} == SHAPES
    assert (merged.report["adapters"], merged.report["matrices"]) == (4, 3)


@pytest.mark.parametrize("name", ["dare", "della"])
def test_random_operators_repeat_with_the_seed_and_need_one(name):
    tasks = [adapter(1), adapter(2)]
    first, again, other = (merge(tasks, name, generator=seeded(s)).updates for s in (1, 1, 2))
    assert_same(dense(first), dense(again))
    assert_same(dense(first), dense(first))
    assert not torch.equal(first["a.q_proj"].dense(), other["a.q_proj"].dense())
    with pytest.raises(UserError, match=r"merge=dare draws at random|merge=della draws at random"):
        merge(tasks, name)


@pytest.mark.parametrize("name", OPERATORS)
def test_only_dense_operators_stream_and_factored_ones_hold_factors(name):
    updates = merge([adapter(1), adapter(2)], name, generator=seeded()).updates
    streams = operator_class(name).full_rank
    assert isinstance(updates, Streamed if streams else dict)
    assert streams or all(isinstance(u, LowRank) and u.rank <= 4 for u in updates.values())


@pytest.mark.parametrize("name", DENSE)
def test_dense_operators_take_full_rank_updates_like_their_factors(name):
    left = merge([adapter(1), full(2)], name, generator=seeded()).updates
    right = merge([adapter(1), adapter(2)], name, generator=seeded()).updates
    assert_same(dense(left), dense(right), rtol=1e-4, atol=1e-5)
