"""Equal learning: the smallest scale c of an adapter's update at which its own NLL on validation is a given level."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from hiplora.errors import UserError
from hiplora.matching import Place, at, most, place
from hiplora.stages.record import Record
from hiplora.stages.results import Point


@dataclass(frozen=True)
class Curve:
    """The ``points`` of one adapter by ascending scale c, from the bare backbone at c = 0.

    ``linear`` joins them by straight lines, as :func:`hiplora.matching.at` does.
    """

    task: str
    points: tuple[Point, ...]
    linear: bool = False

    @cached_property
    def scales(self) -> list[float]:
        """c of every point."""
        return [point.scale for point in self.points]

    @cached_property
    def learning(self) -> list[float]:
        """NLL of the adapter's own benchmark at every c."""
        return [_number(point.learning[self.task]["nll"]) for point in self.points]

    def also(self, record: Record) -> Curve:
        """The curve with the points of another frontier of the same adapter."""
        return replace(self, points=tuple(sorted((*self.points, *record.result.points), key=lambda point: point.scale)))

    def place(self, level: float) -> Place:
        """The smallest c with this own NLL, or the c with the lowest own NLL if the level is never reached.

        Raises:
            UserError: the bare backbone is at the level already.
        """
        if self.learning[0] <= level:
            raise UserError(
                f"The level of {self.task}, {level:.4f} nats, is not below the backbone's own {self.learning[0]:.4f}: "
                "an adapter would have nothing to learn; select again (pipeline=select)."
            )
        return place(self.scales, self.learning, level, linear=self.linear)

    def reach(self, level: float) -> float | None:
        """The smallest c with this own NLL; None if the adapter never reaches it. Raises as :meth:`place`."""
        found = self.place(level)
        return found.c if found.reached else None

    def most(self) -> float:
        """The smallest scale, of those that were measured, with the lowest own NLL."""
        return most(self.scales, self.learning)

    def gained(self, share: float) -> float:
        """The own NLL with this share of the largest gain at any scale that was measured."""
        return self.learning[0] - share * (self.learning[0] - min(self.learning))

    def at(self, c: float, value: Callable[[Point], float]) -> float:
        """A quantity of the points at scale c, interpolated."""
        return at(self.scales, [value(point) for point in self.points], c, linear=self.linear)

    def own(self, c: float) -> float:
        """The own NLL at c."""
        return at(self.scales, self.learning, c, linear=self.linear)

    def rises(self, c: float) -> dict[str, float]:
        """Text or benchmark → its NLL at c minus the backbone's."""
        before = self.points[0].benchmarks
        return {name: self.at(c, lambda point, name=name: self._rise(point, name)) for name in before}  # type: ignore[misc]

    def _rise(self, point: Point, name: str) -> float:
        return _number(point.benchmarks[name]["nll"]) - _number(self.points[0].benchmarks[name]["nll"])


def curve(task: str, *, base: Record, adapter: Record) -> Curve:
    """The curve of an adapter, from the records of the backbone's frontier and of its own; snapshots are left out."""
    results: list[Any] = [base.result, adapter.result]
    points = [point for result in results for point in result.points if point.fraction in (0, 1)]
    return Curve(task, tuple(sorted({point.scale: point for point in points}.values(), key=lambda point: point.scale)))


def _number(value: float | None) -> float:
    assert value is not None  # a likelihood is always measured
    return value
