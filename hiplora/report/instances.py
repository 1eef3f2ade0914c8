"""Merge instances as the tables see them: one set of adapters merged, each task's metrics before and after."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hiplora import stats
from hiplora.report.evidence import Record, Slot
from hiplora.tasks import primary, task_class

SIZES = (2, 3, 4)
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
        for task in self.adapters:
            for name in task_class(task).scores:
                before, after = self.before[task].get(name), self.after[task].get(name)
                if before is not None and after is not None:
                    found[task, name] = 100 * (after - before)
        return found

    @property
    def measured(self) -> bool:
        """Whether every metric of every merged task is there; without code execution pass@k is not."""
        return len(self.deltas()) == sum(len(task_class(task).scores) for task in self.adapters)

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
            {task: float(side[task][primary(task)] or 0) for task in self.adapters}
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
