"""Cells of tables from measures: means over training seeds with t intervals, over merge instances with bootstraps."""

from __future__ import annotations

import itertools
import math
import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np

from hiplora import stats
from hiplora.report.evidence import Evidence
from hiplora.report.experiment import SEED
from hiplora.report.marks import joined
from hiplora.report.slots import Entry, Number
from hiplora.report.table import Cell, Column
from hiplora.stages.results import Adapter
from hiplora.tasks import TASKS, task_class

BOOTSTRAP_SEED = 20240
Interval = tuple[float, float] | tuple[None, None]


@dataclass(frozen=True)
class Sample:
    """Numbers by seed, or by merge instance (sampling seed, size, adapters); ``expected`` is the complete count."""

    of: Mapping[Any, Number]
    expected: int

    @property
    def values(self) -> stats.Floats:
        """The values in order."""
        return np.array([each.value for each in self.of.values()], dtype=float)

    @property
    def mean(self) -> float:
        """The mean of the values. ValueError without one."""
        return stats.summarize(self.values).mean

    @property
    def runs(self) -> tuple[str, ...]:
        """The ids of the records behind the values, each once."""
        return tuple(dict.fromkeys(run for each in self.of.values() for run in each.runs))

    @property
    def marks(self) -> str:
        """The marks of these records."""
        return joined(each.marks for each in self.of.values())

    def minus(self, other: Sample) -> Sample:
        """The differences to ``other``, for the keys that both have."""
        return self._paired(other, operator.sub)

    def over(self, other: Sample) -> Sample:
        """The ratios to ``other``, for the keys that both have."""
        return self._paired(other, operator.truediv)

    def _paired(self, other: Sample, of: Callable[[float, float], float]) -> Sample:
        found = {}
        for key, (one, two) in ((key, (self.of[key], other.of[key])) for key in self.of if key in other.of):
            found[key] = Number(of(one.value, two.value), (*one.runs, *two.runs), joined([one.marks, two.marks]))
        return Sample(found, min(self.expected, other.expected))

    def cell(self, row: str, column: Column, value: float | None, **more: Any) -> Cell:
        """A cell with a statistic of these values, empty where it is None."""
        behind = {"runs": self.runs, "marks": self.marks} if value is not None else {}
        shared: dict[str, Any] = {"n": len(self.of), "n_expected": self.expected, **behind, **more}
        return Cell(row=row, column=column.label, value=value, **shared)

    def mean_cell(self, row: str, column: Column, level: str = "t", *, paper: float | None = None) -> Cell:
        """The cell of their mean, with std and interval; ``level`` as for :meth:`interval`."""
        if not self.of:
            return self.cell(row, column, None, paper=paper)
        summary, (low, high) = stats.summarize(self.values), self.interval(level)
        return self.cell(row, column, summary.mean, std=summary.std, ci_low=low, ci_high=high, paper=paper)

    def interval(self, level: str = "t") -> Interval:
        """95 % interval of the mean: Student's "t", bootstrap over "seed" (hierarchical) or "adapter" (pigeonhole)."""
        if level == "t":
            return stats.t_interval(self.values) if len(self.of) > 1 else (None, None)
        if (means := self._bootstrap(level)) is None:
            return None, None
        low, high = stats.percentile_interval(means)
        return float(low), float(high)

    def p_values(self) -> Interval:
        """Two two-sided p values for a mean of zero: hierarchical bootstrap, exact sign flips of the seeds' means."""
        if (means := self._bootstrap("seed")) is None:
            return None, None
        by_seed = {seed: [self.of[key].value for key in self.of if key[0] == seed] for seed, *_ in self.of}
        return stats.bootstrap_p(means), stats.sign_flip_p([float(np.mean(values)) for values in by_seed.values()])

    def _bootstrap(self, level: str) -> stats.Floats | None:  # None: one seed gives no information about the spread
        spread = {key[0] for key in self.of} if level == "seed" else self.of
        return stats.weighted_means(self.values, weights(tuple(self.of), level)) if len(spread) > 1 else None


def pooled(samples: Sequence[Sample]) -> Sample:
    """The means over several samples, for the keys that all of them have."""
    found = {}
    for key in (key for key in samples[0].of if all(key in each.of for each in samples)):
        there = [each.of[key] for each in samples]
        runs = tuple(run for each in there for run in each.runs)
        value = sum(each.value for each in there) / len(there)
        found[key] = Number(value, runs, joined(each.marks for each in there))
    return Sample(found, min(each.expected for each in samples))


@lru_cache(maxsize=64)
def weights(keys: tuple[Any, ...], level: str) -> stats.Floats:
    """Bootstrap weights. They depend on the instances alone, so rows over the same instances remain paired."""
    rng = np.random.default_rng(BOOTSTRAP_SEED)
    if level == "seed":
        return stats.hierarchical_weights([key[0] for key in keys], rng=rng)
    return stats.adapter_weights([dict(key[2]) for key in keys], rng=rng)


def per_seed(
    evidence: Evidence,
    measure: str,
    *,
    group: str = "single",
    tasks: Sequence[str] | None = None,
    per: Mapping[str, Sample] | None = None,
    **point: str,
) -> Sample:
    """One value per training seed, the mean over its adapters; a seed that lacks an adapter or a value is left out.

    Only adapters of ``tasks`` count, if these are given, and only those for which the measure is defined. Each value is
    divided by the mean of its task in ``per``, whose records then stand behind it too. Expected are the seeds that the
    experiment has at this point.
    """
    found: dict[str, Number] = {}
    seeds: dict[str, list[int]] = {}
    for slot in evidence.select(group, **point):
        place = evidence.slots[slot].run.point
        seeds.setdefault(place[SEED], [])
        if (tasks is None or place["task"] in tasks) and defined(measure, evidence.slots[slot].task):
            seeds[place[SEED]].append(slot)
    for seed, slots in seeds.items():
        rows = [each for each in evidence.measure(measure, slots) if not math.isnan(each.value)]
        if slots and len(rows) == len(slots):
            units = [] if per is None else [per[each.members[0][0]] for each in rows]
            value = sum(each.value / (units[i].mean if units else 1) for i, each in enumerate(rows)) / len(rows)
            behind: list[Number | Sample] = [*rows, *units]
            runs = tuple(run for each in behind for run in each.runs)
            found[seed] = Number(value, runs, joined(each.marks for each in behind))
    return Sample(found, len(seeds))


def defined(measure: str, task: str | None) -> bool:
    """Whether a measure is defined for adapters of a task: those of word problems cannot forget word problems."""
    return task not in TASKS or not (measure.endswith("styled") and task_class(task).styled)


def per_instance(
    evidence: Evidence, measure: str, sizes: Sequence[int] = (2, 3, 4), *, group: str = "merge", **point: str
) -> Sample:
    """One value per merge instance; an instance without a value is left out, which n shows."""
    slots = evidence.select(group, **point)
    wanted = [[len(e.members) for e in evidence.slots[slot].entries if e.role == "merged"] for slot in slots]
    expected = sum(sum(size in sizes for size in found) or 1 for found in wanted)
    rows = [each for each in evidence.measure(measure, slots) if len(each.members) in sizes]
    seeds = {slot: evidence.slots[slot].run.point[SEED] for slot in slots}
    keys = [(seeds[each.slot], len(each.members), tuple(sorted(each.members))) for each in rows]
    return Sample({key: each for key, each in zip(keys, rows, strict=True) if not math.isnan(each.value)}, expected)


def trainings(evidence: Evidence, group: str, method: str) -> dict[str, list[Entry]]:
    """The trainings of one method by seed, for each seed that has all its adapters."""
    found: dict[str, list[Entry]] = {}
    for slot in (evidence.slots[number] for number in evidence.select(group, method=method)):
        trained = (entry for entry in slot.entries if isinstance(entry.result, Adapter))
        found.setdefault(slot.run.point[SEED], []).append(next(trained, Entry(role="train")))
    return {seed: each for seed, each in found.items() if all(entry.record is not None for entry in each)}


def bare(evidence: Evidence, row: str, column: Column, measure: str) -> Cell:
    """The cell of the bare backbone: a single measurement, which all runs share."""
    found = evidence.measure(measure, range(len(evidence.slots)))
    sample = Sample({each.runs: each for each in found if not math.isnan(each.value)}, 1)
    return sample.cell(row, column, sample.mean if sample.of else None)


def cell(evidence: Evidence, row: str, column: Column, group: str, **point: str) -> Cell:
    """The mean of a column's measure over the runs at a point: over seeds if its spread is "std", else instances."""
    paper = evidence.experiment.paper_value(column.paper.format(**point))
    return _sample(evidence, column, group, point).mean_cell(row, column, _level(column), paper=paper)


def _sample(evidence: Evidence, column: Column, group: str, point: Mapping[str, str]) -> Sample:
    """The values of a column's measure at a point, by training seed or by merge instance."""
    where: dict[str, Any] = {**point, **column.point, "group": group}
    if column.spread == "std":
        return per_seed(evidence, column.measure, **where)
    return per_instance(evidence, column.measure, column.sizes, **where)


def _level(column: Column) -> str:
    return "t" if column.spread == "std" else column.level


def rows(evidence: Evidence, columns: Iterable[Column], group: str, *axes: str) -> list[Cell]:
    """The cells of one row for every combination of the keys of ``axes``."""
    points = itertools.product(*(evidence.experiment.keys(group, axis) for axis in axes))
    named = [(evidence.experiment.label(*keys), dict(zip(axes, keys, strict=True))) for keys in points]
    return [cell(evidence, row, each, group, **point) for (row, point), each in itertools.product(named, columns)]


def differences(
    evidence: Evidence, columns: Iterable[Column], group: str, pairs: Iterable[tuple[str, str]]
) -> tuple[list[Column], list[Cell]]:
    """Columns and cells with the differences between pairs of methods, paired by training seed or merge instance.

    Each column is one of ``columns`` with Δ before its label; a difference of percentages is in points. The interval is
    Student's t over training seeds; over merge instances it is the bootstrap of the column.
    """
    columns, found = list(columns), []
    labels = [f"Δ {column.label.replace('(%)', '(pp)')}" for column in columns]
    shown = [replace(c, label=label, spread="ci", level=_level(c)) for c, label in zip(columns, labels, strict=True)]
    for one, other in pairs:
        row = " − ".join(map(evidence.experiment.label, (one, other)))
        for column, named in zip(columns, shown, strict=True):
            left, right = (_sample(evidence, column, group, {"method": each}) for each in (one, other))
            found.append(left.minus(right).mean_cell(row, named, named.level))
    return shown, found
