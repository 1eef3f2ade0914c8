"""Statistics against closed forms, brute force, an independent library, and simulations whose truth is known."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import stats as reference

from hiplora import stats

TASKS = ("mmlu", "scienceqa", "gsm8k", "code")


def test_summary_and_t_interval_against_scipy():
    values = [41.0, 43.5, 40.2]
    summary = stats.summarize(values)
    assert (summary.mean, summary.std, summary.n) == (
        pytest.approx(np.mean(values)),
        pytest.approx(np.std(values, ddof=1)),
        3,
    )
    expected = reference.t.interval(0.95, 2, loc=np.mean(values), scale=reference.sem(values))
    assert stats.t_interval(values) == pytest.approx(expected)
    assert stats.summarize([1.0]).std is None


@pytest.mark.parametrize(("right", "n"), [(0, 10), (10, 10), (1, 3), (37, 80), (299, 300)])
def test_interval_of_a_proportion_against_scipy(right, n):
    for level in (0.95, 0.9):
        expected = reference.binomtest(right, n).proportion_ci(level, method="wilson")
        assert stats.proportion_interval(right / n, n, level=level) == pytest.approx(tuple(expected), abs=1e-12)


def naive_hierarchical(groups: list[list[float]], *, replicates: int, rng: np.random.Generator) -> np.ndarray:
    """The bootstrap as one would write it with loops."""
    means = []
    for _ in range(replicates):
        drawn = [groups[i] for i in rng.integers(len(groups), size=len(groups))]
        means.append(np.mean(np.concatenate([rng.choice(group, size=len(group)) for group in drawn])))
    return np.array(means)


@pytest.mark.parametrize("sizes", [(4, 4, 4), (2, 5, 3)])
def test_hierarchical_weights_are_the_looped_bootstrap(sizes):
    rng = np.random.default_rng(0)
    groups = [list(rng.normal(loc=position, size=size)) for position, size in enumerate(sizes)]
    seeds = [position for position, size in enumerate(sizes) for _ in range(size)]
    weights = stats.hierarchical_weights(seeds, rng=rng, replicates=20_000)
    ours = stats.weighted_means(np.concatenate(groups), weights)
    naive = naive_hierarchical(groups, replicates=4000, rng=rng)
    assert reference.ks_2samp(ours, naive).pvalue > 0.01
    assert weights.shape == (20_000, sum(sizes))
    if len(set(sizes)) == 1:
        assert np.all(weights.sum(axis=1) == sum(sizes))


def test_adapter_weights_are_products_of_adapter_counts():
    # All nine pairs of three adapters of two tasks: a replicate is the outer product of two multinomials.
    pairs = [{"mmlu": a, "code": b} for a, b in itertools.product(range(3), repeat=2)]
    weights = stats.adapter_weights(pairs, rng=np.random.default_rng(0), replicates=500).reshape(-1, 3, 3)
    assert np.all(weights.sum(axis=(1, 2)) == 9)
    assert np.allclose(weights, weights.sum(2, keepdims=True) * weights.sum(1, keepdims=True) / 9)


def naive_adapters(
    adapters: list[dict], values: list[float], *, replicates: int, rng: np.random.Generator
) -> np.ndarray:
    """The adapter-level bootstrap with loops; an instance counts once for each choice of its drawn adapters."""
    seeds = {task: sorted({each[task] for each in adapters if task in each}) for task in TASKS}
    means: list[float] = []
    while len(means) < replicates:
        drawn = {task: list(rng.choice(of, size=len(of))) for task, of in seeds.items()}
        counts = [np.prod([drawn[task].count(seed) for task, seed in each.items()]) for each in adapters]
        if sum(counts):
            means.append(np.average(values, weights=counts))
    return np.array(means)


def test_adapter_weights_are_the_looped_bootstrap():
    """Merges of two and three tasks, with more adapters of some tasks than of others."""
    rng = np.random.default_rng(0)
    numbers = dict(zip(TASKS, (2, 3, 4, 5), strict=True))
    adapters = [
        {task: int(rng.integers(numbers[task])) for task in rng.permutation(TASKS)[:size]} for size in 6 * (2, 3)
    ]
    values = list(rng.normal(size=len(adapters)))
    ours = stats.weighted_means(values, stats.adapter_weights(adapters, rng=rng, replicates=20_000))
    naive = naive_adapters(adapters, values, replicates=4000, rng=rng)
    assert reference.ks_2samp(ours, naive).pvalue > 0.01


def test_a_replicate_without_any_instance_is_drawn_again():
    lonely = [{"mmlu": 0, "code": 1}, {"mmlu": 1, "code": 0}]
    weights = stats.adapter_weights(lonely, rng=np.random.default_rng(0), replicates=300)
    assert weights.shape == (300, 2)
    assert np.all(weights.sum(axis=1) > 0)


def test_methods_stay_paired():
    rng = np.random.default_rng(0)
    lora = rng.normal(size=12)
    weights = stats.hierarchical_weights([i // 4 for i in range(12)], rng=rng, replicates=1000)
    means = stats.weighted_means(np.stack([lora, lora + 2.5]), weights)
    assert np.ptp(means[1] - means[0]) < 1e-12
    low, high = stats.percentile_interval(means)
    assert low.shape == high.shape == (2,)
    assert np.all(low < means.mean(axis=1)) and np.all(means.mean(axis=1) < high)  # noqa: PT018


def coverage(simulate, *, rng: np.random.Generator, simulations: int = 200, replicates: int = 400) -> list[float]:
    """Share of simulated data sets whose intervals hold the true mean, 0."""
    hits = []
    for _ in range(simulations):
        values, weightings = simulate(rng, replicates)
        intervals = [stats.percentile_interval(stats.weighted_means(values, weights)) for weights in weightings]
        hits.append([low <= 0 <= high for low, high in intervals])
    return np.mean(hits, axis=0).tolist()


def test_coverage_where_seeds_are_independent():
    def nested(rng, replicates):
        seeds = np.repeat(np.arange(30), 5)
        values = rng.normal(size=30)[seeds] + rng.normal(size=150)
        return values, [stats.hierarchical_weights(seeds.tolist(), rng=rng, replicates=replicates)]

    (covered,) = coverage(nested, rng=np.random.default_rng(1))
    assert 0.90 <= covered <= 0.99


def test_coverage_where_instances_share_adapters():
    """The design of MergeFail: the hierarchical interval is far too narrow, the adapter-level one much less so."""

    def merges(rng, replicates):
        seeds, adapters = [], []
        for seed, size, _ in itertools.product(range(3), (2, 3, 4), range(3)):
            seeds.append(seed)
            adapters.append({task: int(rng.integers(3)) for task in rng.permutation(TASKS)[:size]})
        effect = {(task, seed): rng.normal() for task in TASKS for seed in range(3)}
        values = [np.mean([effect[item] for item in merged.items()]) + 0.1 * rng.normal() for merged in adapters]
        hierarchical = stats.hierarchical_weights(seeds, rng=rng, replicates=replicates)
        return np.array(values), [hierarchical, stats.adapter_weights(adapters, rng=rng, replicates=replicates)]

    narrow, wide = coverage(merges, rng=np.random.default_rng(2))
    assert narrow < 0.70
    assert 0.80 <= wide <= 0.97


def test_bootstrap_p_is_never_zero_and_symmetric():
    assert stats.bootstrap_p(np.full(9999, 2.0)) == pytest.approx(2 / 10_000)
    assert stats.bootstrap_p([-1.0, 1.0, 2.0, 3.0]) == stats.bootstrap_p([1.0, -1.0, -2.0, -3.0]) == pytest.approx(0.8)
    assert stats.bootstrap_p(np.zeros(10)) == 1.0


def test_sign_flip_against_brute_force():
    differences = [0.7, -0.1, 1.3, 0.4]
    flips = [abs(np.dot(signs, differences)) for signs in itertools.product((1, -1), repeat=4)]
    expected = np.mean([flip >= abs(sum(differences)) - 1e-9 for flip in flips])
    assert stats.sign_flip_p(differences) == pytest.approx(expected)
    assert stats.sign_flip_p([1.0, 2.0, 0.5]) == 0.25
    assert stats.sign_flip_p([0.0, 0.0]) == 1.0


def test_paired_t_and_equivalence_against_scipy():
    ours, theirs = [1.0, 1.2, 0.9, 1.4, 1.1], [1.3, 1.1, 1.2, 1.9, 1.2]
    found = stats.paired_t(np.subtract(ours, theirs))
    expected = reference.ttest_rel(ours, theirs)
    assert (found.p, found.n) == (pytest.approx(expected.pvalue), 5)
    assert found.interval == pytest.approx(expected.confidence_interval(0.95))
    assert found.narrow == pytest.approx(expected.confidence_interval(0.9))
    # The 90 % interval is inside a margin exactly where both one-sided tests are significant at 5 %.
    for margin in (0.3, 0.5):
        sides = [
            reference.ttest_1samp(np.subtract(ours, theirs), bound, alternative=side).pvalue
            for bound, side in ((-margin, "greater"), (margin, "less"))
        ]
        assert (max(sides) < 0.05) == (-margin < found.narrow[0] and found.narrow[1] < margin)
    assert stats.paired_t([0.5, 0.5]).p == 0
    assert stats.paired_t([0.0, 0.0]).p == 1


def test_holm_by_hand():
    assert stats.holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert stats.holm([]) == []


def test_the_smallest_detectable_effect_is_found_with_its_power():
    rng = np.random.default_rng(0)
    effect = stats.smallest_detectable(2.0, 10, alpha=0.01)
    p = reference.ttest_1samp(rng.normal(effect, 2.0, size=(4000, 10)), 0, axis=1).pvalue
    assert np.mean(p < 0.01) == pytest.approx(0.8, abs=0.02)


@pytest.mark.parametrize(
    ("differences", "margin", "better", "expected"),
    [
        ([-0.20, -0.22, -0.18, -0.21], 0.1, "down", "supported"),
        ([-0.20, -0.22, -0.18, -0.21], 0.1, "up", "not supported"),  # significant, the wrong way
        ([-0.20, -0.22, -0.18, -0.21], 0.3, "down", "not supported"),  # inside the margin
        ([-0.05, -0.06, -0.04, -0.05], 0.1, "down", "not supported"),  # significant and of no consequence
        ([-0.5, 0.3, -0.2, 0.1], 0.1, "down", "undecidable"),
        ([0.20, 0.22, 0.18, 0.21], 0.1, "up", "supported"),
    ],
)
def test_verdicts(differences, margin, better, expected):
    paired = stats.paired_t(differences)
    assert stats.verdict(paired, corrected=paired.p, margin=margin, better=better) == expected


def test_what_is_not_significant_after_correction_is_not_supported():
    paired = stats.paired_t([-0.20, -0.40, -0.10, -0.30])
    assert paired.p < 0.05
    assert stats.verdict(paired, corrected=5 * paired.p, margin=0.1) == "undecidable"


@pytest.mark.parametrize(
    ("before", "after", "tau", "failed", "excluded"),
    [
        ({"mmlu": 0.5, "code": 0.2}, {"mmlu": 0.45, "code": 0.2}, 0.9, False, ()),
        ({"mmlu": 0.5, "code": 0.2}, {"mmlu": 0.44, "code": 0.9}, 0.9, True, ()),
        ({"mmlu": 0.5, "code": 0.2}, {"mmlu": 0.44, "code": 0.2}, 0.85, False, ()),
        ({"mmlu": 0.5, "code": 0.0}, {"mmlu": 0.5, "code": 0.0}, 0.9, False, ("code",)),
        ({"mmlu": 0.0, "code": 0.0}, {"mmlu": 0.5, "code": 0.0}, 0.9, None, ("code", "mmlu")),
        ({"mmlu": 150 / 204}, {"mmlu": 135 / 204}, 0.9, False, ()),  # exactly at the threshold, in any rounding
        ({"mmlu": 0.8, "code": 0.1}, {"mmlu": 0.72, "code": 0.09}, 0.9, False, ()),
        ({"mmlu": 150 / 204}, {"mmlu": 134 / 204}, 0.9, True, ()),
    ],
)
def test_merge_failure(before, after, tau, failed, excluded):
    outcome = stats.merge_outcome(before, after, tau=tau)
    assert (outcome.failed, outcome.excluded) == (failed, excluded)


def test_a_merge_that_loses_nothing_can_fail_by_chance():
    coin = {"mmlu": 0.5}
    assert stats.no_damage_fail(coin, {"mmlu": 2}) == pytest.approx(1 / 4), "0 of 2 is below 0.9"
    assert stats.no_damage_fail(coin, {"mmlu": 2}, tau=1.0) == pytest.approx(1 / 4), "1 of 2 is at the threshold"
    two = {"mmlu": 0.5, "code": 0.5}
    assert stats.no_damage_fail(two, {"mmlu": 2, "code": 2}) == pytest.approx(1 - (3 / 4) ** 2)
    assert stats.no_damage_fail({"mmlu": 1.0}, {"mmlu": 300}) == 0
    assert stats.no_damage_fail({"mmlu": 0.5, "code": 0.0}, {"mmlu": 2, "code": 80}) == pytest.approx(1 / 4)
    assert stats.no_damage_fail({"code": 0.0}, {"code": 80}) is None
    rng = np.random.default_rng(0)
    drawn = rng.binomial(300, 0.4, size=20_000) < 0.95 * 0.4 * 300
    assert stats.no_damage_fail({"mmlu": 0.4}, {"mmlu": 300}, tau=0.95) == pytest.approx(drawn.mean(), abs=0.01)


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: stats.summarize([]), "non-empty"),
        (lambda: stats.summarize([1.0, float("nan")]), "NaN"),
        (lambda: stats.t_interval([1.0]), "at least 2"),
        (lambda: stats.hierarchical_weights([], rng=np.random.default_rng(0)), "no instances"),
        (lambda: stats.weighted_means([1.0, float("nan")], np.ones((3, 2))), "NaN"),
        (lambda: stats.weighted_means([1.0], np.ones((3, 2))), "instances"),
        (lambda: stats.merge_outcome({"mmlu": 1.0}, {"code": 1.0}), "before has"),
        (lambda: stats.sign_flip_p(np.ones(21)), "at most 20"),
        (lambda: stats.paired_t([1.0]), "at least 2"),
        (lambda: stats.smallest_detectable(1.0, 1), "at least 2"),
    ],
)
def test_bad_input_is_refused(call, sentence):
    with pytest.raises(ValueError, match=sentence):
        call()


def test_the_share_of_a_gain_that_a_merge_keeps():
    assert stats.kept_share(base=3.0, own=1.0, merged=2.5) == 0.25
    assert stats.kept_share(base=3.0, own=1.0, merged=9.0) == -1.0
    assert stats.kept_share(base=3.0, own=1.0, merged=0.5) == 1.0
    assert stats.kept_share(base=3.0, own=3.0, merged=3.0) is None
