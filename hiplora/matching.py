"""Where a learning curve reaches a level, at which methods are compared at equal learning.

A leaf: numpy only (scipy is imported where isotonic regression is needed). A curve is an adapter's validation NLL over
x, either the scale c of its finished update or the fraction of its training steps; x starts at 0, the bare backbone.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
DIGITS = 4  # of a scale, which identifies what is scored with it


class Place(NamedTuple):
    """The scale ``c`` of the update at which an adapter is compared; ``reached``: it is at the level there."""

    c: float
    reached: bool


def place(scales: ArrayLike, learning: ArrayLike, level: float) -> Place:
    """The smallest scale at which ``learning`` is down to ``level``, to four decimals, else that of its minimum.

    Raises:
        ValueError: the bare backbone is at the level already, or the scales and the learning are no curve.
    """
    places, values = _curve(scales, learning)
    if values[0] <= level:
        raise ValueError(f"a level of {level} is not below the backbone's own {values[0]}")
    found = reach(places, values, level)
    if found is None:
        return Place(most(places, values), reached=False)
    return Place(min(max(round(found, DIGITS), 10.0**-DIGITS), float(places[-1])), reached=True)


def most(scales: ArrayLike, learning: ArrayLike) -> float:
    """The smallest measured scale at which ``learning`` (an NLL) has its minimum; never the bare backbone.

    Raises:
        ValueError: the scales and the learning are no curve, or one of the bare backbone alone.
    """
    places, values = _curve(scales, learning)
    if places.size == 1:
        raise ValueError("the curve has only the bare backbone, so no scale has learned anything")
    return float(places[1 + int(values[1:].argmin())])


def reach(x: ArrayLike, learning: ArrayLike, level: float, *, isotonic: bool = False) -> float | None:
    """The smallest x at which ``learning`` (an NLL, lower is better) is down to ``level``; None if it never is.

    Between points the curve is linear. With ``isotonic`` it is first made non-increasing in x, by least squares, so
    that the noise of one point along a training does not count as learning.

    Raises:
        ValueError: x does not increase from 0, or the two differ in length.
    """
    places, values = _curve(x, learning)
    if isotonic:
        from scipy.optimize import isotonic_regression

        values = isotonic_regression(values, increasing=False).x
    below = np.flatnonzero(values <= level)
    if not below.size:
        return None
    first = int(below[0])
    if first == 0:
        return float(places[0])
    left, right = values[first - 1], values[first]
    return float(places[first - 1] + (places[first] - places[first - 1]) * (left - level) / (left - right))


def at(x: ArrayLike, values: ArrayLike, where: float) -> float:
    """The curve's value at ``where``, linear between the points.

    Raises:
        ValueError: ``where`` is outside the range of x, x does not increase from 0, or the two differ in length.
    """
    places, heights = _curve(x, values)
    if not places[0] <= where <= places[-1]:
        raise ValueError(f"{where} is outside the curve, which goes from {places[0]} to {places[-1]}")
    return float(np.interp(where, places, heights))


def _curve(x: ArrayLike, values: ArrayLike) -> tuple[Floats, Floats]:
    places, heights = np.asarray(x, dtype=float), np.asarray(values, dtype=float)
    if places.ndim != 1 or places.shape != heights.shape or places.size == 0:
        raise ValueError(f"a curve needs as many values as places, got {heights.shape} and {places.shape}")
    if not (np.isfinite(places).all() and np.isfinite(heights).all()):
        raise ValueError("the curve holds NaN or infinity")
    if places[0] != 0 or (np.diff(places) <= 0).any():
        raise ValueError(f"x must increase from 0, the bare backbone; got {places.tolist()}")
    return places, heights
