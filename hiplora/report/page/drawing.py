"""Small SVG drawings in the page's colours: a training curve, and learning against forgetting."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from statistics import quantiles

from hiplora.report.figure import SERIES

POINTS = 120  # of a curve; longer trainings are averaged
CHARACTER = 6  # pixels of a digit of a tick's words
# The markers of the figures as SVG paths, about 8 pixels wide, by their names in matplotlib.
SHAPES = {
    "o": "M-3.6 0a3.6 3.6 0 1 0 7.2 0a3.6 3.6 0 1 0-7.2 0z", "s": "M-3.2-3.2h6.4v6.4h-6.4z", "^": "M0-4.2L4 3.2H-4z",
    "D": "M0-4.4L4.4 0L0 4.4L-4.4 0z", "v": "M0 4.2L4-3.2H-4z",
    "P": "M-1.4-4h2.8v2.6h2.6v2.8h-2.6v2.6h-2.8v-2.6h-2.6v-2.8h2.6z",
    "X": "M-3.8-2L-2-3.8L0-1.8L2-3.8L3.8-2L1.8 0L3.8 2L2 3.8L0 1.8L-2 3.8L-3.8 2L-1.8 0z",
}  # fmt: skip
LOOKS = tuple((color, SHAPES[marker]) for color, marker, _ in SERIES)


@dataclass(frozen=True)
class Axis:
    """An axis: a mapping from numbers to pixels (``place``), with ticks at round numbers."""

    ticks: tuple[tuple[float, str], ...]  # pixel, words
    place: Callable[[float], float]


@dataclass(frozen=True)
class Mark:
    """One adapter in a scatter; ``outside`` if it is drawn at the frame's edge because it lies far outside."""

    x: float
    y: float
    series: int | None  # index into the looks; None for a method without its own
    href: str
    title: str
    outside: bool = False


@dataclass(frozen=True)
class Curve:
    """A training curve: its points in SVG's format, and its axes."""

    points: str
    x: Axis
    y: Axis


@dataclass(frozen=True)
class Scatter:
    """A scatter plot: marks in pixels, the Pareto front in SVG's format, the axes, and where the plot begins."""

    title: str
    marks: tuple[Mark, ...]
    front: str
    x: Axis
    y: Axis
    left: float

    @property
    def size(self) -> int:
        """The number of marks."""
        return len(self.marks)


def axis(values: Sequence[float], start: float, end: float, *, ticks: int = 4) -> Axis:
    """An axis that maps the range of the values to the pixels from ``start`` to ``end``."""
    from matplotlib.ticker import MaxNLocator

    low, high = min(values), max(values)
    if low == high:
        low, high = low - (abs(low) / 10 or 1), high + (abs(high) / 10 or 1)
    margin = 0.04 * (high - low)
    low, high = low - margin, high + margin

    def place(value: float) -> float:
        return round(start + (value - low) / (high - low) * (end - start), 1)

    shown = [value for value in MaxNLocator(ticks).tick_values(low, high) if low <= value <= high]
    return Axis(tuple((place(value), f"{value:.6g}".replace("-", "−")) for value in shown), place)


def curve(steps: Sequence[float], losses: Sequence[float], *, width: int, height: int) -> Curve:
    """The curve of the losses; with many steps, neighbouring ones are averaged."""
    size = -(-len(steps) // POINTS)
    parts = [slice(start, start + size) for start in range(0, len(steps), size)]
    xs, ys = ([sum(values[part]) / len(values[part]) for part in parts] for values in (steps, losses))
    x, y = axis(xs, 40, width - 6), axis(ys, height - 22, 6, ticks=3)
    return Curve(" ".join(f"{x.place(a):g},{y.place(b):g}" for a, b in zip(xs, ys, strict=True)), x, y)


def scatter(title: str, marks: Sequence[Mark], *, width: int, height: int) -> Scatter:
    """The scatter plot of one task's marks. Its frame goes from y = 0 to the marks that are :func:`near` the others."""
    xs, ys = near([mark.x for mark in marks]), near([mark.y for mark in marks])
    y = axis([0.0, *ys], height - 40, 8)
    left = 22 + CHARACTER * max((len(words) for _, words in y.ticks), default=4)  # the axis has its name beside it
    x = axis(xs, left, width - 16)

    def place(of_x: float, of_y: float) -> tuple[float, float]:
        """The place of a point; of one outside the frame, at its edge."""
        return x.place(_clipped(of_x, xs)), y.place(_clipped(of_y, [0.0, *ys]))

    placed = []
    for mark in marks:
        across, down = place(mark.x, mark.y)
        outside = _clipped(mark.x, xs) != mark.x or _clipped(mark.y, [0.0, *ys]) != mark.y
        placed.append(replace(mark, x=across, y=down, outside=outside))
    front = [place(*point) for point in pareto([(mark.x, mark.y) for mark in marks])]
    return Scatter(title, tuple(placed), " ".join(f"{a:g},{b:g}" for a, b in front), x, y, left)


def _clipped(value: float, frame: Sequence[float]) -> float:
    return min(max(value, min(frame)), max(frame))


def near(values: Sequence[float]) -> list[float]:
    """The values without those more than three interquartile ranges outside the quartiles.

    All of fewer than eight values, and of values half of which are equal.
    """
    low, _, high = quantiles(values, method="inclusive") if len(values) >= 8 else (0.0, 0.0, 0.0)
    if low == high:
        return [*values]
    margin = 3 * (high - low)
    return [value for value in values if low - margin <= value <= high + margin]


def pareto(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The Pareto front: points for which no other has both larger x (learned) and smaller y (forgot), by x."""
    front: list[tuple[float, float]] = []
    for x, y in sorted(set(points), key=lambda point: (-point[0], point[1])):
        if not front or y < front[-1][1]:
            front.append((x, y))
    return front[::-1]
