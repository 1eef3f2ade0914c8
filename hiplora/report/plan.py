"""What a table would take: which runs are there, which are missing, how long they should run."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hiplora.report.evidence import Evidence, Record, Slot, missing_slots
from hiplora.report.ignored import flat

SEED = "seed"
WORK = ("scale", "model", "data", "training", "evaluation", "merging")  # settings that say how much a run has to do


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """Seconds for the missing runs that past timings speak to, and how many runs nothing is known of."""

    seconds: float
    unknown: int


def seconds(record: Record) -> float:
    """Wall-clock seconds of one past run: the sum of its stages."""
    return sum(float(value) for key, value in record["timings"].items() if key.endswith("_s"))


def estimate(missing: Sequence[Slot], past: Sequence[Record]) -> Estimate:
    """Time of the missing runs, each from the median of the past ones most like it.

    Most alike are the records of the same pipeline and settings with the same method and task, then with the same
    task, then any; where no record has these settings, those of other settings stand in, in the same order.
    """
    total, unknown = 0.0, 0
    for slot in missing:
        alike = _alike(slot, [r for r in past if r["pipeline"] == slot.wanted.pipeline])
        if alike:
            total += statistics.median(seconds(record) for record in alike)
        else:
            unknown += 1
    return Estimate(seconds=total, unknown=unknown)


def _alike(slot: Slot, records: Sequence[Record]) -> list[Record]:
    point = {key: value for key, value in slot.wanted.point.items() if key != SEED}
    same_work = [r for r in records if slot.settings is not None and _work(r["config"]) == _work(slot.settings)]
    for pool in (same_work, records):
        for keys in (tuple(point), tuple(key for key in point if key != "method"), ()):
            found = [r for r in pool if all(str(r["labels"].get(key)) == point[key] for key in keys)]
            if found:
                return found
    return []


def _work(settings: Mapping[str, Any]) -> dict[str, Any]:
    """By full name; what is null is left out, as a record from before the field was there has none."""
    chosen = {name: settings.get(name) for name in WORK}
    return {key: value for key, value in flat(chosen) if value is not None}


def duration(value: float) -> str:
    """Seconds in words: ``3 h 20 min``, ``12 min``, ``40 s``."""
    if value < 90:
        return f"{value:.0f} s"
    minutes = round(value / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def text(evidence: Evidence, past: Sequence[Record]) -> str:
    """The plan as printed; ``past`` as for :func:`estimate`."""
    setting = evidence.setting
    missing = missing_slots(evidence.slots)
    lines = [
        f"{evidence.experiment.name}: {evidence.experiment.title}",
        f"{setting.backbone}, {setting.data}, scale {setting.scale}",
    ]
    for name, group in evidence.experiment.groups.items():
        lines += ["", f"Runs of pipeline {group.pipeline}, there/wanted:", *_grid(evidence, name)]
    lines += ["", f"There: {len(evidence.records)} of {len(evidence.slots)} runs. {_time(missing, past)}"]
    lines += [f"Note: {note}" for note in evidence.notes]
    if evidence.commands:
        lines += ["", "What is missing is made by", *(f"  {line}" for line in evidence.commands)]
    return "\n".join(lines)


def _time(missing: Sequence[Slot], past: Sequence[Record]) -> str:
    if not missing:
        return "Nothing to run."
    guess = estimate(missing, past)
    if guess.unknown == len(missing):
        return f"{len(missing)} to run; no past run says how long they take."
    words = f"{len(missing)} to run, about {duration(guess.seconds)} one after another, by the timings of past runs"
    words += f" ({guess.unknown} of them unlike any past run and not counted)" if guess.unknown else ""
    merges = any(slot.wanted.pipeline == "merge" for slot in missing)
    return words + ("; adapters no longer under outputs/ are trained again on top." if merges else ".")


def _grid(evidence: Evidence, group: str) -> list[str]:
    """Counts over the seeds: the last other axis across, the rest down."""
    experiment = evidence.experiment
    axes = [axis for axis in experiment.groups[group].axes if axis != SEED]
    down, across = (axes[:-1], axes[-1:]) if len(axes) > 1 else (axes, [])
    columns = list(itertools.product(*(experiment.keys(group, axis) for axis in across)))
    body = [["", *(" ".join(column) or "runs" for column in columns)]]
    for row in itertools.product(*(experiment.keys(group, axis) for axis in down)):
        points = [dict(zip((*down, *across), (*row, *column), strict=True)) for column in columns]
        label = ", ".join(experiment.label(key) for key in row)
        body.append([label, *(_count(evidence.select(group, **point)) for point in points)])
    widths = [max(len(line[i]) for line in body) for i in range(len(body[0]))]
    padded = [[cell.ljust(width) for cell, width in zip(line, widths, strict=True)] for line in body]
    return ["  " + "  ".join(line).rstrip() for line in padded]


def _count(slots: Sequence[Slot]) -> str:
    if any(slot.problem for slot in slots):
        return "cannot run"
    return f"{sum(slot.record is not None for slot in slots)}/{len(slots)}"
