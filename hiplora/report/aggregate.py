"""From measures to cells: over training seeds with a t interval, over merge instances with both bootstraps.

Bootstrap weights depend on the list of instances alone and are drawn from a fixed seed, so rows over the same
instances share them: differences stay paired.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd

from hiplora import stats
from hiplora.report.experiment import SEED
from hiplora.report.frame import Evidence
from hiplora.report.measures import joined
from hiplora.report.table import Cell, Column

BOOTSTRAP_SEED = 20240
Key = tuple[str, int, tuple[tuple[str, int], ...]]  # sampling seed, size, adapters: the same for every method
Interval = tuple[float, float] | tuple[None, None]


@dataclass(frozen=True)
class Sample:
    """Values by what they are of, a seed or an instance; ``expected`` is how many there should be.

    ``rows`` has the columns value, runs (record ids) and marks.
    """

    rows: pd.DataFrame
    expected: int

    @property
    def values(self) -> stats.Floats:
        """The values in order."""
        return self.rows["value"].to_numpy(dtype=float)

    def minus(self, other: Sample) -> Sample:
        """Differences of what both have."""
        both = self.rows.join(other.rows, how="inner", rsuffix="_other")
        added = both[["runs", "marks"]] + both[["runs_other", "marks_other"]].set_axis(["runs", "marks"], axis=1)
        return Sample(added.assign(value=both["value"] - both["value_other"]), max(self.expected, other.expected))

    def cell(self, row: str, column: Column, value: float | None, **more: Any) -> Cell:
        """A cell with some statistic of these values, empty where it is None."""
        behind = self.rows if value is not None else self.rows[:0]
        runs = tuple(dict.fromkeys(itertools.chain.from_iterable(behind["runs"])))
        n = {"n": len(self.rows), "n_expected": self.expected}
        return Cell(row=row, column=column.label, value=value, **n, marks=joined(behind["marks"]), runs=runs, **more)

    def mean(self, row: str, column: Column, level: str, *, paper: float | None = None) -> Cell:
        """The cell of their mean, with std and interval; ``level`` as for :meth:`interval`."""
        if self.rows.empty:
            return self.cell(row, column, None, paper=paper)
        summary, (low, high) = stats.summarize(self.values), self.interval(level)
        return self.cell(row, column, summary.mean, std=summary.std, ci_low=low, ci_high=high, paper=paper)

    def interval(self, level: str) -> Interval:
        """95 % interval of the mean: Student's "t", or of the bootstrap over "seed" (hierarchical) or "adapter".

        None where one value, or instances of one seed, say nothing of their own spread.
        """
        if level == "t":
            return stats.t_interval(self.values) if len(self.rows) > 1 else (None, None)
        if (means := self._bootstrap(level)) is None:
            return None, None
        low, high = stats.percentile_interval(means)
        return float(low), float(high)

    def p_values(self) -> Interval:
        """Two-sided p of a mean of zero: hierarchical bootstrap, exact sign flips of the sampling seeds' means."""
        if (means := self._bootstrap("seed")) is None:
            return None, None
        by_seed = self.rows["value"].groupby([key[0] for key in self.rows.index], sort=False).mean()
        return stats.bootstrap_p(means), stats.sign_flip_p(by_seed)

    def _bootstrap(self, level: str) -> stats.Floats | None:
        keys: tuple[Key, ...] = tuple(self.rows.index)
        spread = {key[0] for key in keys} if level == "seed" else keys
        return stats.weighted_means(self.values, weights(keys, level)) if len(spread) > 1 else None


@lru_cache(maxsize=64)
def weights(keys: tuple[Key, ...], level: str) -> stats.Floats:
    """Bootstrap weights of a list of instances: level "seed" (hierarchical) or "adapter" (pigeonhole)."""
    rng = np.random.default_rng(BOOTSTRAP_SEED)
    if level == "seed":
        return stats.hierarchical_weights([key[0] for key in keys], rng=rng)
    return stats.adapter_weights([dict(key[2]) for key in keys], rng=rng)


def per_seed(evidence: Evidence, measure: str, **point: str) -> Sample:
    """One value per training seed, the mean over its adapters; a seed that lacks an adapter or a value is left out."""
    slots = evidence.select("single", **point)
    wanted = Counter(evidence.slots[slot].run.point[SEED] for slot in slots)
    seeds = evidence.measure(measure, slots).dropna(subset=["value"]).groupby(SEED, sort=False)
    rows = seeds.agg(value=("value", "mean"), n=("value", "size"), runs=("id", tuple), marks=("marks", joined))
    return Sample(rows[rows["n"] == rows.index.map(wanted)], len(evidence.experiment.keys("single", SEED)))


def per_instance(evidence: Evidence, measure: str, sizes: Sequence[int] = (2, 3, 4), **point: str) -> Sample:
    """One value per merge instance; one without a value is left out and shows in n."""
    slots = evidence.select("merge", **point)
    wanted = [[len(e.members) for e in evidence.slots[slot].entries if e.role == "merged"] for slot in slots]
    expected = sum(sum(size in sizes for size in found) or 1 for found in wanted)
    rows = evidence.measure(measure, slots).dropna(subset=["value"])
    rows = rows[rows["size"].isin(sizes)]
    keys = [(row.seed, row.size, tuple(sorted(row.members))) for row in rows.itertuples()]
    rows = rows.assign(runs=[(id,) for id in rows["id"]])[["value", "runs", "marks"]]
    return Sample(rows.set_axis(pd.Index(keys, tupleize_cols=False)), expected)


def cell(evidence: Evidence, row: str, column: Column, **point: str) -> Cell:
    """The mean of a column's measure over the runs at a point: over seeds or over instances, as its spread says."""
    paper = evidence.paper_value(*column.paper.format(table=evidence.experiment.name, **point).split("/"))
    if column.spread == "std":
        return per_seed(evidence, column.measure, **point, **column.point).mean(row, column, "t", paper=paper)
    sample = per_instance(evidence, column.measure, column.sizes, **point, **column.point)
    return sample.mean(row, column, column.level, paper=paper)


def rows(evidence: Evidence, columns: Iterable[Column], group: str, *axes: str) -> list[Cell]:
    """A row of cells for every combination of the keys of some axes."""
    points = itertools.product(*(evidence.experiment.keys(group, axis) for axis in axes))
    named = [(evidence.experiment.label(*keys), dict(zip(axes, keys, strict=True))) for keys in points]
    return [cell(evidence, row, column, **point) for (row, point), column in itertools.product(named, columns)]
