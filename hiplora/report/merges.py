"""Merged models as the tables see them, with both bootstraps.

Values are per instance; an instance is one set of adapters merged. Weights depend on the list of instances
alone and are drawn from a fixed seed, so rows over the same instances share them: differences stay paired.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from hiplora import stats
from hiplora.report.cells import Cell, Column
from hiplora.report.evidence import Record, Slot

BOOTSTRAP_SEED = 20240
SIZES = (2, 3, 4)
PRIMARY = {"mmlu": "acc", "scienceqa": "acc", "gsm8k": "acc", "code": "pass@1"}
DROPS = {"mmlu": ("acc",), "scienceqa": ("acc",), "gsm8k": ("acc",), "code": ("pass@1", "pass@5", "pass@10")}
Key = tuple[str, int, tuple[tuple[str, int], ...]]


@dataclass(frozen=True, kw_only=True)
class Instance:
    """One merge: the training seed of each task's adapter, each task's metrics before and after (fractions)."""

    run: str
    seed: str
    size: int
    adapters: Mapping[str, int]
    before: Mapping[str, Mapping[str, float | None]]
    after: Mapping[str, Mapping[str, float | None]]

    @property
    def key(self) -> Key:
        """Sampling seed and adapters: the same for every method and operator."""
        return self.seed, self.size, tuple(sorted(self.adapters.items()))

    def deltas(self) -> dict[tuple[str, str], float]:
        """After − before in pp, by task and metric, where both were measured."""
        found = {}
        for task, metrics in DROPS.items():
            for name in metrics if task in self.adapters else ():
                before, after = self.before[task].get(name), self.after[task].get(name)
                if before is not None and after is not None:
                    found[task, name] = 100 * (after - before)
        return found

    @property
    def measured(self) -> bool:
        """Whether every metric of every merged task is there; without code execution pass@k is not."""
        return len(self.deltas()) == sum(len(DROPS[task]) for task in self.adapters)

    def drop(self) -> float | None:
        """Mean absolute drop in pp over the metrics of the merged tasks; None where one was not measured."""
        deltas = self.deltas()
        return sum(abs(delta) for delta in deltas.values()) / len(deltas) if self.measured else None

    def nll_rise(self) -> float | None:
        """Mean over the merged tasks of the rise of the gold answer's negative log-likelihood, nats per token."""
        rises = []
        for task in self.adapters:
            before, after = self.before[task].get("nll"), self.after[task].get("nll")
            if before is None or after is None:
                return None
            rises.append(after - before)
        return sum(rises) / len(rises)

    def outcome(self, tau: float) -> stats.MergeOutcome:
        """Whether it fails at τ by its tasks' headline scores; undecided where one was not measured."""
        if not self.measured:
            return stats.MergeOutcome(failed=None, excluded=())
        before, after = (
            {task: float(side[task][PRIMARY[task]] or 0) for task in self.adapters}
            for side in (self.before, self.after)
        )
        return stats.merge_outcome(before, after, tau=tau)

    def failed(self, tau: float) -> float | None:
        """100 if it fails at τ, 0 if not, None where that cannot be judged."""
        failed = self.outcome(tau).failed
        return None if failed is None else 100.0 * failed


def instances(slots: Sequence[Slot], *, sizes: Sequence[int] = SIZES) -> list[Instance]:
    """Instances of the records that are there, in the order of their seeds."""
    return [i for slot in slots if slot.record for i in _of_record(slot.record) if i.size in sizes]


def _of_record(record: Record) -> list[Instance]:
    seed = str(record["labels"]["seed"])
    return [
        Instance(
            run=record["id"],
            seed=seed,
            size=raw["size"],
            adapters=raw["adapters"],
            before=raw["before"],
            after=raw["after"],
        )
        for raw in record["metrics"]["instances"]
    ]


def expected(slots: Sequence[Slot], *, sizes: Sequence[int] = SIZES) -> int:
    """Instances that all seeds together should have; one per seed where no record says how many."""
    planned = [sum(slot.record["metrics"]["planned"].get(str(s), 0) for s in sizes) for slot in slots if slot.record]
    return (max(planned) if planned else 1) * len(slots)


@lru_cache(maxsize=64)
def weights(keys: tuple[Key, ...], level: str) -> stats.Floats:
    """Bootstrap weights of a list of instances: level "seed" (hierarchical) or "adapter" (pigeonhole)."""
    rng = np.random.default_rng(BOOTSTRAP_SEED)
    if level == "seed":
        return stats.hierarchical_weights([key[0] for key in keys], rng=rng)
    return stats.adapter_weights([dict(key[2]) for key in keys], rng=rng)


def _resamples(keys: Sequence[Key], level: str) -> bool:
    """Whether there is anything to resample: one seed, or one instance, says nothing of its own spread."""
    return len({key[0] for key in keys}) > 1 if level == "seed" else len(keys) > 1


@dataclass(frozen=True, kw_only=True)
class Measure:
    """A number per instance under a column; ``level`` names the bootstrap of its interval."""

    column: Column
    value: Callable[[Instance], float | None]
    sizes: Sequence[int] = SIZES
    level: str = "seed"


def measure_cell(slots: Sequence[Slot], measure: Measure, *, row: str, paper: float | None = None) -> Cell:
    """Mean over instances with its interval; an instance without the value is left out and shows in n.

    No interval from a single sampling seed (hierarchical) or a single instance (adapter-level).
    """
    wanted = expected(slots, sizes=measure.sizes)
    pairs = [(i, measure.value(i)) for i in instances(slots, sizes=measure.sizes)]
    kept = [(instance, value) for instance, value in pairs if value is not None]
    label = measure.column.label
    if not kept:
        return Cell(row=row, column=label, value=None, n=0, n_expected=wanted, paper=paper)
    values = np.array([value for _, value in kept], dtype=float)
    keys = tuple(i.key for i, _ in kept)
    low, high = _interval(stats.weighted_means(values, weights(keys, measure.level)), keys, measure.level)
    return Cell(
        row=row,
        column=label,
        value=float(values.mean()),
        std=stats.summarize(values).std,
        ci_low=low,
        ci_high=high,
        n=len(kept),
        n_expected=wanted,
        paper=paper,
        runs=tuple(dict.fromkeys(instance.run for instance, _ in kept)),
    )


def _interval(draws: stats.Floats, keys: Sequence[Key], level: str) -> tuple[float, float] | tuple[None, None]:
    if not _resamples(keys, level):
        return None, None
    low, high = stats.percentile_interval(draws)
    return float(low), float(high)


@dataclass(frozen=True, kw_only=True)
class Paired:
    """Differences over the instances that two sets of merges share, with what the bootstrap says of their mean.

    ``interval`` and the p-values are None where there is a single seed (or, adapter-level, a single instance).
    """

    differences: tuple[float, ...] = ()
    expected: int
    interval: tuple[float, float] | tuple[None, None] = (None, None)
    bootstrap_p: float | None = None
    sign_flip_p: float | None = None
    runs: tuple[str, ...] = ()


def paired(ours: Sequence[Slot], theirs: Sequence[Slot], measure: Measure) -> Paired:
    """Ours minus theirs, instance by instance; empty without a common instance that both have the value of."""
    left, right = ({i.key: i for i in instances(slots, sizes=measure.sizes)} for slots in (ours, theirs))
    both = [(key, measure.value(left[key]), measure.value(right[key])) for key in left if key in right]
    found = {key: a - b for key, a, b in both if a is not None and b is not None}
    runs = dict.fromkeys(side[key].run for side in (left, right) for key in found)
    wanted = max(expected(slots, sizes=measure.sizes) for slots in (ours, theirs))
    if not found:
        return Paired(expected=wanted)
    by_seed: dict[str, list[float]] = {}
    for key, difference in found.items():
        by_seed.setdefault(key[0], []).append(difference)
    keys = tuple(found)
    draws = stats.weighted_means(np.array(list(found.values())), weights(keys, measure.level))
    known = _resamples(keys, measure.level)
    return Paired(
        differences=tuple(found.values()),
        expected=wanted,
        interval=_interval(draws, keys, measure.level),
        bootstrap_p=stats.bootstrap_p(draws) if known else None,
        sign_flip_p=stats.sign_flip_p([float(np.mean(values)) for values in by_seed.values()]) if known else None,
        runs=tuple(runs),
    )


INTERVAL_NOTE = (
    "In brackets: 95 % percentile intervals of the hierarchical paired bootstrap (sampling seeds, then instances "
    "within each; 10 000 replicates, the same for every method). Instances share adapters, so these intervals are too "
    "narrow: in simulations of this design they hold the truth in 28 to 69 % of cases, the adapter-level (pigeonhole) "
    "intervals in 85 to 93 %. Where both are shown, read the adapter-level one. An interval without width says that "
    "all instances agreed, not that the rate is known; a single sampling seed has none."
)


def unjudged_notes(slots: Sequence[Slot]) -> list[str]:
    """How often MergeFail could not be judged: an adapter that scored 0 before the merge, a score not measured."""
    outcomes = [(i, i.outcome(0.9)) for i in instances(slots) if i.measured]
    tasks = sum(len(i.adapters) for i, _ in outcomes)
    excluded = sum(len(outcome.excluded) for _, outcome in outcomes)
    undefined = sum(outcome.failed is None for _, outcome in outcomes)
    return [
        f"A task whose adapter scored 0 before the merge cannot fall and is not judged: {excluded} of {tasks} "
        f"task scores here; {undefined} of {len(outcomes)} instances had no task left and are not counted.",
        *unmeasured_notes(slots),
    ]


def unmeasured_notes(slots: Sequence[Slot]) -> list[str]:
    """How many merges lack a score of a merged task; empty where all are there."""
    every = instances(slots)
    short = sum(not i.measured for i in every)
    if not short:
        return []
    return [
        f"{short} of {len(every)} instances merge code without pass@k, as code execution was off: they have neither "
        "a mean absolute drop nor a MergeFail."
    ]
