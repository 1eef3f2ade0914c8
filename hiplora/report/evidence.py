"""What is there of an experiment's runs, as the tables receive it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hiplora import stats
from hiplora.report.cells import Cell
from hiplora.report.experiment import Experiment, Wanted

Record = Mapping[str, Any]
PAPER_VALUES = Path(__file__).resolve().parents[2] / "results" / "paper" / "values.yaml"


@dataclass(frozen=True, kw_only=True)
class Slot:
    """One wanted run: its record, or None; ``problem`` says why it cannot be composed at all, else it has settings."""

    wanted: Wanted
    settings: Mapping[str, Any] | None = None
    record: Record | None = None
    problem: str | None = None


def missing_slots(slots: Sequence[Slot]) -> list[Slot]:
    """Slots that have no record and can be run."""
    return [slot for slot in slots if slot.record is None and slot.problem is None]


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What all runs of a table share; ``folder`` is ``results/<data>``.

    ``changed`` holds the settings in which they differ from the table as it is defined.
    """

    folder: Path
    backbone: str
    data: str
    scale: str
    changed: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """Slots of every group, with what a reader must know about them."""

    experiment: Experiment
    slots: Sequence[Slot]
    setting: Setting
    paper: Mapping[str, Any]
    notes: tuple[str, ...] = ()
    commands: tuple[str, ...] = ()

    def select(self, group: str, **point: str) -> list[Slot]:
        """Slots of one group at the given places of its axes."""
        return [
            slot
            for slot in self.slots
            if slot.wanted.group == group and all(slot.wanted.point[axis] == key for axis, key in point.items())
        ]

    def paper_value(self, *path: str) -> float | None:
        """A figure of the paper, None where it states none."""
        value: Any = self.paper
        for key in path:
            value = value.get(key) if isinstance(value, Mapping) else None
        return value

    @property
    def records(self) -> list[Record]:
        """Every record that is there."""
        return [slot.record for slot in self.slots if slot.record is not None]


def paper_values(path: Path = PAPER_VALUES) -> dict[str, Any]:
    """The paper's stated figures, by table."""
    import yaml

    return yaml.safe_load(path.read_text())


def metric(record: Record, *path: str) -> float | None:
    """A number under ``record["metrics"]``, None where it was not measured (code execution off, say)."""
    value: Any = record["metrics"]
    for key in path:
        value = value.get(key) if isinstance(value, Mapping) else None
    return None if value is None else float(value)


def seed_cell(
    values: Sequence[float], *, row: str, column: str, expected: int, runs: Sequence[str], paper: float | None = None
) -> Cell:
    """Mean ± std over seeds, with a t interval where two or more are there."""
    if not values:
        return Cell(row=row, column=column, value=None, n=0, n_expected=expected, paper=paper)
    summary = stats.summarize(values)
    low, high = stats.t_interval(values) if summary.n > 1 else (None, None)
    return Cell(
        row=row,
        column=column,
        value=summary.mean,
        std=summary.std,
        ci_low=low,
        ci_high=high,
        n=summary.n,
        n_expected=expected,
        paper=paper,
        runs=tuple(runs),
    )


def per_seed(
    evidence: Evidence,
    group: str,
    value: Callable[[Record], float | None],
    *,
    only: str | None = None,
    **point: str,
) -> tuple[list[float], list[str], int]:
    """One value per seed, the mean over the slots of that seed; a seed short of a slot or a value is left out.

    ``only`` names the one seed to look at. Returns the values, the ids of the records behind them, and the number of
    seeds expected.
    """
    values: list[float] = []
    runs: list[str] = []
    seeds = [only] if only is not None else evidence.experiment.keys(group, "seed")
    for seed in seeds:
        slots = evidence.select(group, seed=seed, **point)
        found = [(slot.record, value(slot.record)) for slot in slots if slot.record is not None]
        numbers = [number for _, number in found if number is not None]
        if slots and len(numbers) == len(slots):
            values.append(sum(numbers) / len(numbers))
            runs += [record["id"] for record, _ in found]
    return values, runs, len(seeds)
