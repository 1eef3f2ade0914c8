"""Matching against curves whose crossing is known in closed form."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.interpolate import PchipInterpolator

from hiplora.matching import at, place, reach

SCALES = [0, 0.4, 0.5, 0.6, 0.75, 0.9, 1]


@pytest.mark.parametrize(
    ("learning", "level", "expected"),
    [
        ([2.0, 1.6, 1.5, 1.4, 1.25, 1.1, 1.0], 1.3, 0.7),  # a straight line is met where it is
        ([2.0, 1.6, 1.5, 1.4, 1.25, 1.1, 1.0], 1.8, 0.2),  # between the backbone and the first c
        ([2.0, 1.6, 1.5, 1.4, 1.25, 1.1, 1.0], 1.0, 1.0),  # at the very end
        ([2.0, 1.6, 1.5, 1.4, 1.25, 1.1, 1.0], 0.99, None),  # never
        ([2.0, 2.1, 2.2, 2.3, 2.4, 2.5, 2.6], 1.9, None),  # what gets worse never does
        ([2.0, 1.6, 1.5, 1.4, 1.25, 1.1, 1.0], 2.1, 0.0),  # the backbone is there already
    ],
)
def test_the_smallest_scale_that_reaches_a_level(learning, level, expected):
    found = reach(SCALES, learning, level)
    assert found is None if expected is None else found == pytest.approx(expected)


@pytest.mark.parametrize(
    ("learning", "level", "between"),
    [
        ([2.0, 1.5, 1.5, 1.7, 1.4, 1.2, 1.4], 1.45, (0.6, 0.75)),  # comes near, goes back, then reaches it
        ([2.0, 1.4, 1.8, 1.8, 1.8, 1.8, 1.8], 1.5, (0.0, 0.4)),  # the smallest c, also if learning is lost again
    ],
)
def test_the_first_crossing_counts(learning, level, between):
    found = reach(SCALES, learning, level)
    assert between[0] < found < between[1]
    assert at(SCALES, learning, found) == pytest.approx(level)


@pytest.mark.parametrize("c", [0.45, 0.57, 0.7, 0.85])
def test_what_a_convex_curve_forgot_at_a_level_is_off_by_less_than_the_margin(c):
    """On curves shaped like the measured ones: straight lines would be off by up to 10 to 29 %."""
    scales = np.array([0, 0.4, 0.5, 0.65, 1.0])
    own, text = 4.5 - 3 * (1 - np.exp(-3 * scales)), 0.2 * scales**2.4
    found = reach(scales, own, 4.5 - 3 * (1 - np.exp(-3 * c)))
    assert found == pytest.approx(c, rel=0.02)
    assert at(scales, text, found) == pytest.approx(0.2 * c**2.4, rel=0.05)


def test_an_adapter_is_compared_where_it_reaches_the_level_or_has_learned_most():
    c, reached = place(SCALES, [2.0, 1.6, 1.5, 1.4, 1.27, 1.1, 1.0], 1.3)
    assert reached
    assert 0.6 < c < 0.75
    assert c == round(c, 4), "rounded as it is scored"
    assert place(SCALES, [2.0, 2.3, 2.2, 2.1, 2.2, 2.1, 2.4], 1.9) == (0.6, False), "never the bare backbone"
    assert place([0, 0.33336], [2.0, 1.0], 1.0) == (0.33336, True), "rounding does not leave the curve"
    with pytest.raises(ValueError, match="not below the backbone's own"):
        place(SCALES, [2.0, 1.6, 1.5, 1.4, 1.25, 1.1, 1.0], 2.0)


def test_isotonic_pools_what_goes_the_wrong_way():
    # 1.2 and 1.6 are one noisy dip: pooled they are 1.4, so the level is reached later than the dip says.
    x, learning = [0, 0.5, 0.75, 1], [2.0, 1.2, 1.6, 1.0]
    assert 0 < reach(x, learning, 1.3) < 0.5
    assert 0.75 < reach(x, learning, 1.3, isotonic=True) < 1
    assert reach(x, [2.0, 1.8, 1.6, 1.0], 1.3, isotonic=True) == reach(x, [2.0, 1.8, 1.6, 1.0], 1.3)
    assert reach(x, [1.0, 1.5, 1.5, 2.0], 1.4, isotonic=True) is None


def test_both_agree_with_a_fine_grid():
    rng = np.random.default_rng(0)
    for _ in range(50):
        learning, grid = np.cumsum(rng.normal(-0.2, 0.3, size=7)), np.linspace(0, 1, 100_001)
        level = float(rng.uniform(learning.min(), learning[0]))
        below = grid[PchipInterpolator(SCALES, learning)(grid) <= level]
        found = reach(SCALES, learning, level)
        assert found == pytest.approx(below[0], abs=2e-5)
        assert at(SCALES, learning, found) == pytest.approx(level)


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: at(SCALES, SCALES, 1.01), "outside the curve"),
        (lambda: at(SCALES, SCALES, -0.01), "outside the curve"),
        (lambda: reach([0.4, 1], [2, 1], 1.5), "increase from 0"),
        (lambda: reach([0, 1, 1], [2, 1, 1], 1.5), "increase from 0"),
        (lambda: reach([0, 1], [2, 1, 1], 1.5), "as many values"),
        (lambda: reach([0, 1], [2, float("nan")], 1.5), "NaN"),
    ],
)
def test_a_curve_that_is_none_is_refused(call, sentence):
    with pytest.raises(ValueError, match=sentence):
        call()
