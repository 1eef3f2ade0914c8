"""Adapters at equal learning: each at the smallest scale, or the earliest step, at which its own NLL is at the level.

Learning is the NLL of the adapter's own benchmark on validation. What it forgot is read off the curve through the
points of its frontier, one of which was measured where the others reach the level.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

import numpy as np
import pandas as pd

from hiplora.evaluation.retention import forgotten
from hiplora.matching import Floats, at, place, reach
from hiplora.report.slots import Entry, Measured, Number, Slot, or_nan
from hiplora.stages.results import Frontier, Metrics, Point
from hiplora.tasks.origins import TEXTS

CURVES = ("frontier", "curve")  # pipelines with frontiers of their own; merges use those of other runs
ADAPTER = ("slot", "group", "task", "seed", "members", "at_level", "runs", "marks")
POINT = ("scale", "fraction", "norm", "top_share", "own", "gain", *TEXTS, "nll", "rises", "falls", "styled")
READ = (*TEXTS, "nll", "rises", "falls", "styled", "norm", "gain")


def lost(base: Mapping[str, Metrics], now: Mapping[str, Metrics], *, trained_on: str) -> dict[str, float]:
    """The rise of every general text's NLL over the backbone's, and Retain-NLL with its parts; nan if not measured."""

    def rise(name: str) -> float | None:
        before, after = (scores.get(name, {}).get("nll") for scores in (base, now))
        return None if before is None or after is None else after - before

    found = {text: rise(text) for text in TEXTS}
    found |= forgotten({name: rise(name) for name in base}, trained_on=trained_on)
    return {name: or_nan(value) for name, value in found.items()}


def point_row(base: Point, point: Point, *, trained_on: str) -> dict[str, float]:
    """One row of the frontiers' frame: the point's scale and fraction, its own NLL and gain, and what it forgot."""
    own, before = (or_nan(each.learning[trained_on]["nll"]) for each in (point, base))
    where = {"scale": point.scale, "fraction": point.fraction, "norm": point.norm}
    where |= {"top_share": or_nan(point.top_share), "own": own, "gain": before - own}
    return where | lost(base.benchmarks, point.benchmarks, trained_on=trained_on)


def frontier_frame(slots: Sequence[Slot]) -> pd.DataFrame:
    """One row per point of every adapter's frontier in ``CURVES``, if the backbone's exists, whose point comes first.

    ``runs`` and ``marks`` are those of all the adapter's records; the columns of ``POINT`` are those of
    :func:`point_row`. ``at_level`` is true for the point measured where the others reach the level.
    """
    axes = dict.fromkeys(axis for slot in slots for axis in slot.run.point)
    rows: list[dict[str, Any]] = []
    for number, slot in enumerate(slots):
        found = defaultdict(list)
        for entry in slot.entries:
            if isinstance(entry.result, Frontier):
                found[entry.members].append(entry)
        bases = found.pop((), None)
        if bases is None or slot.run.pipeline not in CURVES:
            continue
        (zero,) = _points(bases[0])
        place = {axis: slot.run.point.get(axis) for axis in axes}
        for members, entries in found.items():
            ((task, seed),) = members
            of = Number.of(math.nan, [bases[0], *entries])
            drawn, *more = ([*_points(entry)] for entry in entries)  # in the pipeline's order
            points = [(point, False) for point in (zero, *drawn)] + [(point, True) for one in more for point in one]
            for point, at_level in points:
                adapter = (number, slot.run.group, task, seed, members, at_level, of.runs, of.marks)
                of_point = point_row(zero, point, trained_on=task)
                rows.append({**place, **dict(zip(ADAPTER, adapter, strict=True)), **of_point})
    return pd.DataFrame(rows, columns=list(dict.fromkeys([*axes, *ADAPTER, *POINT])))


def _points(entry: Entry) -> list[Point]:
    return cast(Frontier, entry.result).points


def curve(points: Mapping[str, Floats], way: str) -> dict[str, Floats]:
    """One adapter's points, starting at the backbone: its finished update by ``scale``, or training by ``fraction``."""
    others = points["fraction" if way == "scale" else "scale"]
    on_it = np.flatnonzero((others == 0) | (others == 1))
    _, first = np.unique(points[way][on_it], return_index=True)
    return {name: values[on_it[first]] for name, values in points.items()}


def matched(frame: pd.DataFrame, levels: Mapping[str, float]) -> Iterator[Measured]:
    """What every adapter whose task has a level forgot at that level; nan if it never reaches it.

    ``scale/x`` is x at the smallest scale c that reaches the level (``scale/c`` is c itself), ``fraction/x`` is x at
    the earliest fraction of the training that does (``fraction/at``), with learning made monotone. ``any/x`` equals
    ``scale/x``, or, for an adapter that never reaches the level, x at the scale at which it has learned most.
    ``whole/x`` is x of the adapter as it was trained.
    """
    for (slot, task), points in frame.groupby(["slot", "task"], sort=False):
        if (level := levels.get(str(task))) is None:
            continue
        first, found = points.iloc[0], {x: points[x].to_numpy() for x in ("scale", "fraction", "own", *READ)}
        ways = {way: curve(found, way) for way in ("scale", "fraction")}
        anywhere, reached = place(ways["scale"]["scale"], ways["scale"]["own"], level)
        scale = anywhere if reached else None
        fraction = reach(ways["fraction"]["fraction"], ways["fraction"]["own"], level, isotonic=True)
        values = {"scale/c": scale, "fraction/at": fraction}
        places = {"scale": scale, "fraction": fraction, "any": anywhere}
        for name, where in places.items():
            way = "fraction" if name == "fraction" else "scale"
            values |= {f"{name}/{x}": _at(ways[way][way], ways[way][x], where) for x in READ}
        whole = np.flatnonzero((found["scale"] == 1) & (found["fraction"] == 1))  # none if c = 1 was left out
        values |= {f"whole/{x}": found[x][whole[0]] if whole.size else None for x in ("own", *READ)}
        for measure, value in values.items():
            shared = {"slot": slot, "members": first["members"], "measure": measure}
            yield Measured(or_nan(value), first["runs"], first["marks"], **shared)


def _at(x: Floats, values: Floats, where: float | None) -> float | None:
    return None if where is None or np.isnan(values).any() else at(x, values, where)
