"""Where a learning curve reaches a level, at which methods are compared at equal learning.

A leaf: numpy only (scipy is imported where a curve is read). A curve is an adapter's validation NLL over x, either the
scale c of its finished update or the fraction of its training steps; x starts at 0, the bare backbone. Its points are
joined by monotone cubics (Fritsch and Carlson, 1980), because own NLL is convex in c and forgetting grows faster than
c: straight lines (``linear``) overstate both between two points, forgetting by a quarter to a half.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
DIGITS = 4  # of a scale, which identifies what is scored with it


class Place(NamedTuple):
    """The scale ``c`` of the update at which an adapter is compared; ``reached``: it is at the level there."""

    c: float
    reached: bool


def place(scales: ArrayLike, learning: ArrayLike, level: float, *, linear: bool = False) -> Place:
    """The smallest scale at which ``learning`` is down to ``level``, to four decimals, else that of its minimum.

    Raises:
        ValueError: the bare backbone is at the level already, or the scales and the learning are no curve.
    """
    places, values = _curve(scales, learning)
    if values[0] <= level:
        raise ValueError(f"a level of {level} is not below the backbone's own {values[0]}")
    found = reach(places, values, level, linear=linear)
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


def reach(
    x: ArrayLike, learning: ArrayLike, level: float, *, isotonic: bool = False, linear: bool = False
) -> float | None:
    """The smallest x at which ``learning`` (an NLL, lower is better) is down to ``level``; None if it never is.

    With ``isotonic`` the curve is first made non-increasing in x, by least squares, so
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
    from scipy.optimize import brentq

    joined = _joined(places, values, linear)  # monotone between two points, so that it crosses the level once there
    return float(brentq(lambda x: float(joined(x)) - level, places[first - 1], places[first]))


def at(x: ArrayLike, values: ArrayLike, where: float, *, linear: bool = False) -> float:
    """The curve's value at ``where``.

    Raises:
        ValueError: ``where`` is outside the range of x, x does not increase from 0, or the two differ in length.
    """
    places, heights = _curve(x, values)
    if not places[0] <= where <= places[-1]:
        raise ValueError(f"{where} is outside the curve, which goes from {places[0]} to {places[-1]}")
    return float(_joined(places, heights, linear)(where)) if places.size > 1 else float(heights[0])


def _joined(places: Floats, heights: Floats, linear: bool) -> Callable[[float], Any]:
    if linear:
        return lambda x: np.interp(x, places, heights)
    from scipy.interpolate import PchipInterpolator

    return PchipInterpolator(places, heights)


def _curve(x: ArrayLike, values: ArrayLike) -> tuple[Floats, Floats]:
    places, heights = np.asarray(x, dtype=float), np.asarray(values, dtype=float)
    if places.ndim != 1 or places.shape != heights.shape or places.size == 0:
        raise ValueError(f"a curve needs as many values as places, got {heights.shape} and {places.shape}")
    if not (np.isfinite(places).all() and np.isfinite(heights).all()):
        raise ValueError("the curve holds NaN or infinity")
    if places[0] != 0 or (np.diff(places) <= 0).any():
        raise ValueError(f"x must increase from 0, the bare backbone; got {places.tolist()}")
    return places, heights
