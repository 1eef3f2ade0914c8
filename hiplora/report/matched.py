"""Adapters at equal learning: each at the smallest scale, or the earliest step, at which its own NLL is at the level.

Learning is the NLL of the adapter's own benchmark on validation. What it forgot is read off the curve through the
points of its frontier, one of which was measured where the others reach the level.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np

from hiplora.evaluation.retention import forgotten
from hiplora.matching import Floats, at, place, reach
from hiplora.report.slots import Entry, Measured, Number, Slot, or_nan
from hiplora.stages.results import Frontier, Metrics, Point
from hiplora.tasks.origins import TEXTS

CURVES = ("frontier", "curve")  # pipelines with frontiers of their own; merges use those of other runs
READ = (*TEXTS, "nll", "rises", "falls", "styled", "norm", "gain")
DRAWN = ("gain", "text")  # measures of every point, for figures


@dataclass(frozen=True, kw_only=True)
class Curves:
    """The points of one adapter's frontier, of the run with the number ``slot``; ``of`` has all its records and marks.

    ``points`` has an array (n,) for each field of :func:`point_row`, and ``at_level``: whether a point was measured
    where the others reach the level. The backbone's point comes first.
    """

    slot: int
    members: tuple[tuple[str, int], ...]
    of: Number
    points: Mapping[str, Floats]

    @property
    def task(self) -> str:
        """The task that the adapter was trained on."""
        return self.members[0][0]

    @property
    def drawn(self) -> list[tuple[float, float]]:
        """Scale and fraction of the points that all adapters of a grid have."""
        p = self.points
        return [(c, f) for c, f, at_level in zip(p["scale"], p["fraction"], p["at_level"], strict=True) if not at_level]

    def measured(self, measure: str, value: float | None) -> Measured:
        """A measure of this adapter."""
        of = self.of
        return Measured(or_nan(value), of.runs, of.marks, slot=self.slot, members=self.members, measure=measure)


def lost(base: Mapping[str, Metrics], now: Mapping[str, Metrics], *, trained_on: str) -> dict[str, float]:
    """The rise of every general text's NLL over the backbone's, and Retain-NLL with its parts; nan if not measured."""

    def rise(name: str) -> float | None:
        before, after = (scores.get(name, {}).get("nll") for scores in (base, now))
        return None if before is None or after is None else after - before

    found = {text: rise(text) for text in TEXTS}
    found |= forgotten({name: rise(name) for name in base}, trained_on=trained_on)
    return {name: or_nan(value) for name, value in found.items()}


def point_row(base: Point, point: Point, *, trained_on: str) -> dict[str, float]:
    """The fields of a point: its scale and fraction, norm, own NLL and gain, and what it forgot."""
    own, before = (or_nan(each.learning[trained_on]["nll"]) for each in (point, base))
    where = {"scale": point.scale, "fraction": point.fraction, "norm": point.norm, "own": own, "gain": before - own}
    return where | lost(base.benchmarks, point.benchmarks, trained_on=trained_on)


def frontiers(slots: Sequence[Slot]) -> Iterator[Curves]:
    """The curves of every adapter that has a frontier in a run of ``CURVES``, if the backbone's exists."""
    for number, slot in enumerate(slots):
        found = defaultdict(list)
        for entry in slot.entries:
            if isinstance(entry.result, Frontier):
                found[entry.members].append(entry)
        bases = found.pop((), None)
        if bases is None or slot.run.pipeline not in CURVES:
            continue
        (zero,) = _points(bases[0])
        for members, entries in found.items():
            drawn, *more = map(_points, entries)  # in the pipeline's order
            points = [(point, 0.0) for point in (zero, *drawn)] + [(point, 1.0) for one in more for point in one]
            rows = [
                {**point_row(zero, point, trained_on=members[0][0]), "at_level": at_level} for point, at_level in points
            ]
            arrays = {name: np.array([row[name] for row in rows]) for name in rows[0]}
            yield Curves(slot=number, members=members, of=Number.of(math.nan, [bases[0], *entries]), points=arrays)


def _points(entry: Entry) -> list[Point]:
    return cast(Frontier, entry.result).points


def curve(points: Mapping[str, Floats], way: str) -> dict[str, Floats]:
    """One adapter's points, starting at the backbone: its finished update by ``scale``, or training by ``fraction``."""
    others = points["fraction" if way == "scale" else "scale"]
    on_it = np.flatnonzero((others == 0) | (others == 1))
    _, first = np.unique(points[way][on_it], return_index=True)
    return {name: values[on_it[first]] for name, values in points.items()}


def measures(found: Iterable[Curves], levels: Mapping[str, float]) -> Iterator[Measured]:
    """What every adapter has learned and forgotten at the points of its frontier and, if its task has one, at a level.

    ``point/<c>/<fraction>/x`` is x at a point, and ``whole/x`` x of the adapter as it was trained. ``scale/x`` is x at
    the smallest scale c that reaches the level (``scale/c`` is c itself), ``fraction/x`` is x at the earliest fraction
    of the training that does, with learning made monotone; nan if it never reaches it. ``any/x`` equals ``scale/x``,
    or, for an adapter that never reaches the level, x at the scale at which it has learned most.
    """
    for each in found:
        values = {**_whole(each.points), **{name: each.points[name.rpartition("/")[2]][i] for name, i in _drawn(each)}}
        if each.task in levels:
            values |= _at_level(each.points, levels[each.task])
        yield from (each.measured(measure, value) for measure, value in values.items())


def _drawn(each: Curves) -> Iterator[tuple[str, int]]:
    """The measures of the points that figures draw, with the number of the point."""
    for number, (scale, fraction) in enumerate(each.drawn):  # the point at the level comes last
        yield from ((f"{point(scale, fraction)}/{x}", number) for x in DRAWN)


def point(scale: float, fraction: float) -> str:
    """The beginning of the names of the measures of a point."""
    return f"point/{scale:g}/{fraction:g}"


def _whole(points: Mapping[str, Floats]) -> dict[str, float | None]:
    whole = np.flatnonzero((points["scale"] == 1) & (points["fraction"] == 1))  # none if c = 1 was left out
    return {f"whole/{x}": points[x][whole[0]] if whole.size else None for x in ("own", *READ)}


def _at_level(points: Mapping[str, Floats], level: float) -> dict[str, float | None]:
    ways = {way: curve(points, way) for way in ("scale", "fraction")}
    anywhere, reached = place(ways["scale"]["scale"], ways["scale"]["own"], level)
    scale = anywhere if reached else None
    fraction = reach(ways["fraction"]["fraction"], ways["fraction"]["own"], level, isotonic=True)
    values: dict[str, float | None] = {"scale/c": scale}
    for name, where in {"scale": scale, "fraction": fraction, "any": anywhere}.items():
        way = "fraction" if name == "fraction" else "scale"
        values |= {f"{name}/{x}": _at(ways[way][way], ways[way][x], where) for x in READ}
    return values


def _at(x: Floats, values: Floats, where: float | None) -> float | None:
    return None if where is None or np.isnan(values).any() else at(x, values, where)
