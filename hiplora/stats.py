"""Means, bootstraps and tests behind the tables.

A leaf: it needs numpy, and imports scipy and statsmodels only in the functions that use them. Every random function
takes an explicit ``numpy.random.Generator``. A bootstrap is a matrix of weights (replicates, instances), drawn once and
shared by every method and metric, so that comparisons stay paired.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Verdict = Literal["supported", "not supported", "undecidable"]
REPLICATES = 10_000
SIGNIFICANT = 0.05


@dataclass(frozen=True)
class Summary:
    """Mean and sample standard deviation (n - 1) of ``n`` values; ``std`` is None for a single value."""

    mean: float
    std: float | None
    n: int


def summarize(values: ArrayLike) -> Summary:
    """Mean, standard deviation and count of a one-dimensional sample. ValueError if it is empty or not finite."""
    array = _sample(values)
    std = float(array.std(ddof=1)) if array.size > 1 else None
    return Summary(mean=float(array.mean()), std=std, n=int(array.size))


def t_interval(values: ArrayLike, *, level: float = 0.95) -> tuple[float, float]:
    """Student-t confidence interval (low, high) of the mean of independent values. ValueError for fewer than two."""
    from scipy.special import stdtrit

    array = _sample(values)
    if array.size < 2:
        raise ValueError(f"a t interval needs at least 2 values, got {array.size}")
    half = float(stdtrit(array.size - 1, 0.5 + level / 2)) * float(array.std(ddof=1)) / np.sqrt(array.size)
    return float(array.mean() - half), float(array.mean() + half)


def proportion_interval(share: float, n: int, *, level: float = 0.95) -> tuple[float, float]:
    """Wilson's confidence interval (low, high) of a share of ``n`` independent items.

    Items with fractional scores (some of several programs passed) vary less than items that are right or wrong, so for
    them the interval is too wide rather than too narrow.
    """
    from statsmodels.stats.proportion import proportion_confint

    low, high = proportion_confint(share * n, n, alpha=1 - level, method="wilson")
    return float(low), float(high)


def hierarchical_weights(
    seeds: Sequence[Hashable], *, rng: np.random.Generator, replicates: int = REPLICATES
) -> Floats:
    """Weights (replicates, instances) of the hierarchical bootstrap: seeds with replacement, then instances of each.

    ``seeds[i]`` is the seed of instance i; seeds may have different numbers of instances. For a seed drawn c times,
    its n instances are resampled c times, which is one multinomial of c·n draws. Raises ValueError without instances.
    """
    levels, code = _codes(seeds)
    drawn = rng.multinomial(levels, np.full(levels, 1 / levels), size=replicates)
    weights = np.empty((replicates, len(seeds)))
    for level in range(levels):
        members = np.flatnonzero(code == level)
        draws = drawn[:, level] * members.size
        weights[:, members] = rng.multinomial(draws, np.full(members.size, 1 / members.size))
    return weights


def adapter_weights(
    adapters: Sequence[Mapping[str, Hashable]], *, rng: np.random.Generator, replicates: int = REPLICATES
) -> Floats:
    """Weights (replicates, instances) of the adapter-level (pigeonhole) bootstrap (Owen 2007, doi:10.1214/07-AOAS122).

    ``adapters[i]`` maps each merged task of instance i to the training seed of its adapter. Per task, adapters are
    resampled with replacement. The weight of an instance is the product of its adapters' counts, so that instances with
    a common adapter are correlated. A replicate in which all weights are 0 has no mean and is drawn again. Raises
    ValueError without instances.
    """
    if not adapters:
        raise ValueError("no instances to resample")
    kept: list[Floats] = []
    while (missing := replicates - sum(len(part) for part in kept)) > 0:
        draw = _adapter_draw(adapters, rng=rng, replicates=missing)
        kept.append(draw[draw.sum(axis=1) > 0])
    return np.concatenate(kept)


def _adapter_draw(adapters: Sequence[Mapping[str, Hashable]], *, rng: np.random.Generator, replicates: int) -> Floats:
    weights = np.ones((replicates, len(adapters)))
    for task in sorted({task for instance in adapters for task in instance}):
        members = [i for i, instance in enumerate(adapters) if task in instance]
        levels, code = _codes([adapters[i][task] for i in members])
        counts = rng.multinomial(levels, np.full(levels, 1 / levels), size=replicates)
        weights[:, members] *= counts[:, code]
    return weights


def weighted_means(values: ArrayLike, weights: Floats) -> Floats:
    """Bootstrap means (..., replicates) of values (..., instances) under weights (replicates, instances).

    Raises:
        ValueError: the numbers of instances differ, or a value is not finite.
    """
    array = np.asarray(values, dtype=float)
    if array.shape[-1:] != weights.shape[-1:]:
        raise ValueError(f"values have {array.shape[-1:]} instances, the weights {weights.shape[-1:]}")
    if not np.isfinite(array).all():
        raise ValueError("values hold NaN or infinity; drop such instances from every method first")
    return np.einsum("...i,ri->...r", array, weights, optimize=True) / weights.sum(axis=1)


def percentile_interval(replicates: ArrayLike, *, level: float = 0.95) -> tuple[Floats, Floats]:
    """Percentile interval over the last axis of (..., replicates): two arrays, low and high."""
    tail = (1 - level) / 2
    low, high = np.quantile(np.asarray(replicates, dtype=float), [tail, 1 - tail], axis=-1)
    return low, high


def bootstrap_p(differences: ArrayLike) -> float:
    """Two-sided p of "the paired difference is zero", with the +1 correction: never 0, at most 1."""
    draws = _sample(differences)
    below, above = np.count_nonzero(draws <= 0), np.count_nonzero(draws >= 0)
    return float(min(1.0, 2 * (min(below, above) + 1) / (draws.size + 1)))


def sign_flip_p(differences: ArrayLike) -> float:
    """Exact two-sided sign-flip p of the mean of per-seed differences, over all 2^n sign patterns.

    The observed pattern is one of them, so there is no +1 correction; with three seeds p is at least 0.25.

    Raises:
        ValueError: there are more than 20 differences, or none.
    """
    array = _sample(differences)
    if array.size > 20:
        raise ValueError(f"the exact sign-flip test takes at most 20 seeds, got {array.size}")
    patterns = 1 - 2 * ((np.arange(2**array.size)[:, None] >> np.arange(array.size)) & 1)
    flipped = np.abs(patterns @ array)
    # Sums that are equal up to the order of terms may differ in their last bits; they must count as equal.
    return float(np.mean(flipped >= abs(array.sum()) * (1 - 1e-12)))


@dataclass(frozen=True)
class Paired:
    """Paired Student-t test of ``n`` differences: two-sided p of a zero mean, 95 % ``interval``, 90 % ``narrow``.

    The 90 % interval lies inside a margin exactly if two one-sided tests at 5 % (TOST) show equivalence.
    """

    mean: float
    std: float
    n: int
    interval: tuple[float, float]
    narrow: tuple[float, float]
    p: float


def paired_t(differences: ArrayLike) -> Paired:
    """The paired t test of differences, one per independent seed. Raises ValueError for fewer than two."""
    from statsmodels.stats.weightstats import DescrStatsW

    array = _sample(differences)
    if array.size < 2:
        raise ValueError(f"a paired test needs at least 2 differences, got {array.size}")
    described, mean, std = DescrStatsW(array), float(array.mean()), float(array.std(ddof=1))
    # Without any spread t would divide by 0.
    p = float(described.ttest_mean(0)[1]) if std > 0 else float(mean == 0)
    (low, high), (inner_low, inner_high) = (map(float, described.tconfint_mean(alpha=alpha)) for alpha in (0.05, 0.1))
    return Paired(mean=mean, std=std, n=int(array.size), interval=(low, high), narrow=(inner_low, inner_high), p=p)


def holm(p_values: Sequence[float]) -> list[float]:
    """The p values of one family of comparisons after Holm's step-down correction, in the same order."""
    from statsmodels.stats.multitest import multipletests

    return [float(p) for p in multipletests(p_values, method="holm")[1]] if len(p_values) else []


def smallest_detectable(std: float, n: int, *, alpha: float = SIGNIFICANT, power: float = 0.8) -> float:
    """The mean difference that a paired t test of ``n`` seeds with this ``std`` detects with the given power.

    Raises:
        ValueError: n is less than 2.
    """
    if n < 2:
        raise ValueError(f"a paired test needs at least 2 differences, got {n}")
    return _effect_size(n, alpha, power) * std


@lru_cache
def _effect_size(n: int, alpha: float, power: float) -> float:
    """The standardised effect that the test detects; cached because solving is slow and contrasts share it."""
    from statsmodels.stats.power import TTestPower

    effect = TTestPower().solve_power(nobs=n, alpha=alpha, power=power, alternative="two-sided")
    return float(np.squeeze(effect))


def verdict(paired: Paired, *, corrected: float, margin: float, better: Literal["up", "down"] = "down") -> Verdict:
    """The verdict on the claim that a contrast's first side is better than its second.

    - supported: the ``corrected`` p is significant, and the mean is beyond ``margin`` on the better side.
    - not supported: the 90 % interval lies inside the margin, or the contrast is significant on the worse side.
    - undecidable: neither.

    ``better`` is the direction in which the metric improves.
    """
    sign = 1 if better == "up" else -1
    gain, significant = sign * paired.mean, corrected < SIGNIFICANT
    if significant and gain > margin:
        return "supported"
    if inside_margin(paired, margin) or (significant and gain < 0):
        return "not supported"
    return "undecidable"


def inside_margin(paired: Paired, margin: float) -> bool:
    """Whether the 90 % interval lies inside ±``margin``: two one-sided tests at 5 % show equivalence."""
    return -margin < paired.narrow[0] and paired.narrow[1] < margin


TIE = 1e-9  # above the rounding of a product of fractions, below the share of one item


@dataclass(frozen=True)
class MergeOutcome:
    """``failed`` is None if no task could be judged; ``excluded`` names the tasks with before = 0."""

    failed: bool | None
    excluded: tuple[str, ...]


def merge_outcome(before: Mapping[str, float], after: Mapping[str, float], *, tau: float = 0.9) -> MergeOutcome:
    """MergeFail of one merge: any task with ``after < tau * before``; before = 0 cannot fall and is excluded.

    Scores are shares of items, so a score can be exactly at the threshold, which is no failure.

    Raises:
        ValueError: the tasks differ, or there are none.
    """
    if before.keys() != after.keys() or not before:
        raise ValueError(f"before has tasks {sorted(before)}, after has {sorted(after)}")
    excluded = tuple(sorted(task for task, score in before.items() if score == 0))
    judged = [task for task in before if task not in excluded]
    failed = any(after[task] < tau * before[task] - TIE for task in judged) if judged else None
    return MergeOutcome(failed=failed, excluded=excluded)


def no_damage_fail(before: Mapping[str, float], items: Mapping[str, float], *, tau: float = 0.9) -> float | None:
    """Probability of MergeFail by chance alone, for a merge that loses nothing; None if no task can fall.

    Each task's score after the merge is a new draw of its number of ``items``, each right with the probability that is
    the score before. The true chance is smaller where most items keep their answers, since the same items are asked
    before and after, and for items with fractional scores, which vary less.
    """
    from scipy.special import bdtr

    judged = {task: score for task, score in before.items() if score > 0}
    # P(X / n < τ · score), with the tolerance of merge_outcome.
    below = {t: bdtr(np.ceil((tau * score - TIE) * items[t]) - 1, items[t], score) for t, score in judged.items()}
    return 1 - float(np.prod([1 - share for share in below.values()])) if judged else None


def kept_share(*, base: float, own: float, merged: float) -> float | None:
    """Share of an adapter's gain in NLL that a merge keeps, ``(base − merged) / (base − own)``, clipped to ±1.

    None if the adapter alone gained nothing.
    """
    return max(-1.0, min(1.0, (base - merged) / (base - own))) if own < base else None


def _sample(values: ArrayLike) -> Floats:
    array = np.asarray(values, dtype=float)
    if array.ndim != 1 or array.size == 0:
        raise ValueError(f"expected a non-empty list of numbers, got shape {array.shape}")
    if not np.isfinite(array).all():
        raise ValueError("values hold NaN or infinity")
    return array


def _codes(labels: Sequence[Hashable]) -> tuple[int, NDArray[np.intp]]:
    """The number of distinct labels, and each label's index among them in order of appearance."""
    if not labels:
        raise ValueError("no instances to resample")
    order = {label: position for position, label in enumerate(dict.fromkeys(labels))}
    return len(order), np.array([order[label] for label in labels])
