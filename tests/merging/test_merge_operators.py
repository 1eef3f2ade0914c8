"""Every operator: hand-computed cases, boundaries, independent dense references, and what each one refuses."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from hiplora.errors import UserError
from hiplora.merging import OPERATORS, Streamed, merge, operator_class
from hiplora.updates import Dense, LowRank, Principal, zero
from tests.merging.makers import SHAPES, adapter, assert_same, dense, full, hip, one, seeded

DENSE = [name for name in OPERATORS if operator_class(name).accepts_dense]
FACTORED = [name for name in OPERATORS if not operator_class(name).accepts_dense]
DETERMINISTIC = [name for name in OPERATORS if not operator_class(name).draws]


# ---- hand-computed ------------------------------------------------------------------------------------------


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


def test_core_space_by_hand_trims_in_the_basis_of_the_raw_stacks():
    first = {"w": LowRank(torch.tensor([[1.0], [0.0]]), torch.tensor([[1.0, 1.0]]))}
    second = {"w": LowRank(torch.tensor([[2.0], [1.0]]), torch.tensor([[0.0, 3.0]]))}
    # Three of the four entries of each core are kept; B_2 and A_2 are longer and turn both bases towards them.
    merged = merge([first, second], "core_space", density=0.75).updates["w"].dense()
    torch.testing.assert_close(merged, torch.tensor([[1.1177, 3.2599], [0.5188, 1.8589]]), rtol=0, atol=5e-5)


def test_dare_keeps_about_one_minus_p_rescaled_and_is_unbiased():
    ones = one([[1.0] * 400] * 50)
    merged = merge(ones, "dare", drop=0.75, generator=seeded()).updates["w"].dense()
    assert set(merged.flatten().tolist()) == {0.0, 4.0}
    assert abs(merged.mean().item() - 1.0) < 0.05


def test_della_drops_small_entries_more_often():
    from hiplora.merging.della import drop_probabilities

    p = drop_probabilities(torch.tensor([[0.1, -3.0, 2.0], [5.0, 4.0, 0.0]]), 0.5, 0.4)
    torch.testing.assert_close(p, torch.tensor([[0.7, 0.3, 0.5], [0.3, 0.5, 0.7]]))
    ladder = one([list(range(1, 101))] * 500)
    merged = merge(ladder, "della", drop=0.5, window=0.8, generator=seeded()).updates["w"].dense()
    kept = (merged != 0).float().mean(dim=0)
    assert kept[:10].mean() < 0.2 < 0.8 < kept[-10:].mean()
    torch.testing.assert_close(merged.mean(dim=0).sum(), torch.tensor(5050.0), rtol=0.05, atol=0)


# ---- boundaries, for every operator -------------------------------------------------------------------------

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


@pytest.mark.parametrize("name", OPERATORS)
def test_a_merged_update_that_is_not_finite_is_refused_by_name(name):
    huge = {n: u.scaled(1e20) if n == "a.v_proj" else u for n, u in adapter(1).items()}
    huge["a.v_proj"] = LowRank(huge["a.v_proj"].B, huge["a.v_proj"].A * 1e20)
    with pytest.raises(UserError, match=r"merged update of a\.v_proj is not finite.* float32"):
        dense(merge([huge, adapter(2)], name, generator=seeded()).updates)


@pytest.mark.parametrize("name", [name for name in OPERATORS if "scale" in operator_class(name).model_fields])
def test_scales_without_a_sense_are_refused(name):
    for scale in (float("nan"), float("inf"), -float("inf")):
        with pytest.raises(UserError, match=r"merge\.scale=.*must be a finite number"):
            merge([adapter(1)], name, scale=scale)
    with pytest.raises(UserError, match=r"merge\.scale=0 merges to nothing; give another number"):
        merge([adapter(1)], name, scale=0.0)
    for scale in (1e300, -1e300, 1e-300):
        with pytest.raises(UserError, match=r"merge\.scale=.* must be from 1e-4 to 1e4 in magnitude"):
            merge([adapter(1)], name, scale=scale)


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


# ---- independent dense references ---------------------------------------------------------------------------


def ties_reference(tasks: list[dict[str, Tensor]], density: float) -> dict[str, Tensor]:
    """Flat vectors, a sort, and one loop over entries; nothing shared with the package."""
    names = list(tasks[0])
    vectors = [torch.cat([t[n].flatten() for n in names]).tolist() for t in tasks]
    for v in vectors:
        cut = sorted(map(abs, v), reverse=True)[round(density * len(v)) - 1]
        v[:] = [x if abs(x) >= cut else 0.0 for x in v]
    merged = []
    for entries in zip(*vectors, strict=True):
        agree = [x for x in entries if x * sum(entries) > 0]
        merged.append(sum(agree) / len(agree) if agree else 0.0)
    pieces = torch.tensor(merged).split([tasks[0][n].numel() for n in names])
    return {n: p.view(tasks[0][n].shape) for n, p in zip(names, pieces, strict=True)}


def tsvm_reference(tasks: list[Tensor], ranks: list[int]) -> Tensor:
    us, ss, vs = [], [], []
    for x, r in zip(tasks, ranks, strict=True):
        u, s, vh = torch.linalg.svd(x.double(), full_matrices=False)
        k = min(min(x.shape) // len(tasks), r)
        us, ss, vs = [*us, u[:, :k]], [*ss, s[:k]], [*vs, vh[:k].T]
    left, right = ((lambda p, _, q: p @ q)(*torch.linalg.svd(torch.cat(x, 1), full_matrices=False)) for x in (us, vs))
    return left @ torch.diag(torch.cat(ss)) @ right.T


def knots_reference(tasks: list[dict[str, Tensor]], density: float) -> dict[str, Tensor]:
    bases, rows = {}, [{} for _ in tasks]
    for n in tasks[0]:
        u, s, vh = torch.linalg.svd(torch.cat([t[n].double() for t in tasks], dim=1), full_matrices=False)
        bases[n] = u[:, s > 1e-5]
        for row, piece in zip(rows, (s[:, None] * vh)[s > 1e-5].chunk(len(tasks), dim=1), strict=True):
            row[n] = piece
    merged = ties_reference(rows, density)
    return {n: bases[n] @ merged[n].double() for n in merged}


def core_space_reference(tasks: list[dict[str, LowRank]], density: float) -> dict[str, Tensor]:
    """The published method on one matrix after the other: full SVDs of the raw stacks, TIES on the flat cores."""
    merged = {}
    for n in tasks[0]:
        B, A = ([getattr(t[n], side).double() for t in tasks] for side in "BA")
        left = torch.linalg.svd(torch.cat(B, dim=1), full_matrices=False)[0]
        right = torch.linalg.svd(torch.cat(A, dim=0), full_matrices=False)[2]
        core = ties_reference([{n: left.T @ b @ a @ right.T} for b, a in zip(B, A, strict=True)], density)
        merged[n] = left @ core[n].double() @ right
    return merged


@pytest.mark.parametrize("ranks", [(2, 2), (1, 3), (2, 1, 1)])
def test_core_space_equals_the_dense_reference(ranks):
    tasks = [{n: u.scaled(3.0**s) for n, u in adapter(s, r).items()} for s, r in enumerate(ranks)]
    expected = core_space_reference(tasks, 0.5)
    assert_same(dense(merge(tasks, "core_space", density=0.5).updates), expected, rtol=1e-4, atol=1e-5)


def test_ties_equals_the_dense_reference():
    tasks = [adapter(s) for s in (1, 2, 3)]
    assert_same(dense(merge(tasks, "ties").updates), ties_reference([dense(t) for t in tasks], 0.2))


def test_tsvm_equals_the_dense_reference():
    tasks, ranks = [adapter(1, 1), adapter(2, 2), adapter(3, 2)], [1, 2, 2]
    merged = dense(merge(tasks, "tsvm").updates)
    expected = {n: tsvm_reference([t[n].dense() for t in tasks], ranks) for n in merged}
    assert_same(merged, expected, rtol=1e-4, atol=1e-5)


def test_tsvm_does_not_move_under_rounding_noise():
    tasks = [adapter(s) for s in (1, 2, 3)]
    noisy = [{n: LowRank(u.B * (1 + 1e-7), u.A) for n, u in t.items()} for t in tasks]
    extra = [
        {
            n: LowRank(torch.cat([u.B, 1e-8 * u.B[:, :1].flip(0)], 1), torch.cat([u.A, u.A[:1].flip(1)]))
            for n, u in t.items()
        }
        for t in noisy
    ]
    assert_same(dense(merge(tasks, "tsvm").updates), dense(merge(extra, "tsvm").updates), rtol=1e-4, atol=1e-5)


def test_knots_equals_the_dense_reference():
    tasks = [adapter(s, r) for s, r in ((1, 2), (2, 3), (3, 1))]
    expected = knots_reference([dense(t) for t in tasks], 0.2)
    assert_same(dense(merge(tasks, "knots").updates), expected, rtol=1e-4, atol=1e-5)


# ---- oracles ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["core_space", "knots"])
def test_shared_spaces_with_addition_are_addition(name):
    tasks = [adapter(1, 1), adapter(2, 3), hip(3)]
    expected = dense(merge(tasks, "addition").updates)
    assert_same(dense(merge(tasks, name, rule="addition").updates), expected, rtol=1e-4, atol=1e-5)


def test_core_space_sees_directions_that_hip_adapters_share_once():
    """u_i φ_i of two adapters is parallel only up to float32; a core with the rounding in it would trim otherwise."""
    from hiplora.merging.core_space import core_space

    tasks = [hip(seed) for seed in range(3)]
    for name in SHAPES:
        updates = [task[name] for task in tasks]
        exact = [update.to(torch.float64).factors() for update in updates]
        sides = [torch.cat([f.B for f in exact], dim=1), torch.cat([f.A.mT for f in exact], dim=1)]
        left, cores, right = core_space(updates)
        assert cores[0].shape == tuple(int(torch.linalg.matrix_rank(side, rtol=1e-9)) for side in sides)
        for core, update in zip(cores, updates, strict=True):
            torch.testing.assert_close((left @ core @ right.mT).float(), update.dense())


@pytest.mark.parametrize("ranks", [(2, 2, 2), (1, 3, 2)])
def test_core_space_with_tsv_is_tsvm(ranks):
    tasks = [adapter(s, r) for s, r in enumerate(ranks)]
    expected = dense(merge(tasks, "tsvm").updates)
    assert_same(dense(merge(tasks, "core_space", rule="tsvm").updates), expected, rtol=1e-4, atol=1e-5)


def test_hip_adapters_add_in_phi_and_equal_dense_addition():
    tasks = [hip(1), hip(2), hip(3)]
    merged = merge(tasks, "addition").updates
    assert all(isinstance(u, Principal) and u.phi.numel() == 3 and u.residual.rank == 6 for u in merged.values())
    assert_same(dense(merged), {n: sum(t[n].dense() for t in tasks) for n in SHAPES}, rtol=1e-5, atol=1e-5)


# ---- what is held and what is refused -----------------------------------------------------------------------


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


@pytest.mark.parametrize("name", FACTORED)
def test_factor_operators_refuse_full_rank_updates_by_name(name):
    with pytest.raises(UserError, match=f"merge={name} .* dora-gsm8k has a full-rank update"):
        merge([adapter(1), full(2)], name, labels=["lora-mmlu", "dora-gsm8k"], calibration="pico")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"operator": "sum"}, "merge=sum is not known; choose one of addition"),
        ({"operator": "addition", "density": 0.2}, "has no option density"),
        ({"operator": "ties", "density": 1.5}, r"merge.density=1.5 must be at most 1, e.g. 0.2"),
        ({"operator": "ties", "density": 0.0}, "merge.density=0 must be above 0, e.g. 0.2"),
        ({"operator": "knots", "density": -0.1}, "merge.density=-0.1 must be above 0"),
        ({"operator": "core_space", "density": float("nan")}, "merge.density=nan must be"),
        ({"operator": "core_space", "rule": "tie"}, "merge.rule=tie is not known; choose one of ties, tsvm, addition"),
        ({"operator": "della", "window": -0.1}, "merge.window=-0.1 must be at least 0"),
        ({"operator": "della", "drop": 1 - 1e-9, "window": 1e-9}, r"leaves \[0, 1\)"),
        ({"operator": "ties", "threshold": "layer"}, "merge.threshold=layer"),
        ({"operator": "dare", "drop": 1.0}, "merge.drop=1 must be below 1, e.g. 0.8"),
        ({"operator": "della", "drop": 0.95}, "merge.window=0.2"),
        ({"operator": "ties", "calibration": "pica"}, "merge.calibration=pica"),
    ],
)
def test_wrong_options_are_refused_in_one_sentence(arguments, sentence):
    with pytest.raises(UserError, match=sentence):
        merge([adapter(1)], **arguments)


def test_adapters_that_do_not_match_are_refused():
    fewer = {n: u for n, u in adapter(2).items() if n != "a.v_proj"}
    with pytest.raises(UserError, match=r"adapt different modules .a\.v_proj"):
        merge([adapter(1), fewer], "addition")
    other = {**adapter(2), "a.v_proj": LowRank(torch.ones(5, 1), torch.ones(1, 10))}
    with pytest.raises(UserError, match="backbone"):
        merge([adapter(1), other], "addition")
    broken = {**adapter(2), "a.v_proj": adapter(2)["a.v_proj"].scaled(float("nan"))}
    with pytest.raises(UserError, match=r"adapter 2 holds values that are not finite in a\.v_proj"):
        merge([adapter(1), broken], "ties")
    with pytest.raises(UserError, match="nothing to merge"):
        merge([], "addition")
