"""The plan of a table: which runs are there, which are missing, and how long these should take."""

from __future__ import annotations

import statistics
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from hiplora.report.evidence import Evidence
from hiplora.report.experiment import SEED
from hiplora.report.slots import Slot
from hiplora.stages.base import Stage
from hiplora.stages.make import pending
from hiplora.stages.store import Store

RATES = ("lr", "weight_decay")  # settings of a training that take no time


def text(evidence: Evidence) -> str:
    """The plan as printed, of the slots that the evidence holds: all of a table's, or the part that was asked for."""
    there = sum(slot.there for slot in evidence.slots)
    lines = [f"{evidence.experiment.name}: {evidence.experiment.title}"]
    lines += [f"{evidence.backbone}, {evidence.data}, scale {evidence.scale}, records of {evidence.where}"]
    for group in evidence.experiment.groups:
        if slots := [slot for slot in evidence.slots if slot.run.group == group]:
            lines += ["", f"Runs of pipeline {slots[0].run.pipeline}, there/wanted:", *_grid(evidence, slots)]
    lines += ["", f"There: {there} of {len(evidence.slots)} runs. {_work(evidence)}"]
    lines += [f"Note: {note}" for note in (*evidence.notes, *evidence.asides)]
    if evidence.commands:
        lines += ["", "What is missing is made by", *(f"  {line}" for line in evidence.commands)]
    return "\n".join(lines)


def _grid(evidence: Evidence, slots: Sequence[Slot]) -> list[str]:
    """Lines with counts over the seeds: the last other axis in columns, the rest in rows."""

    def count(slots: Sequence[Slot]) -> str:
        there, stale = sum(not slot.missing for slot in slots), sum(slot.stale for slot in slots)
        words = f"{there}/{len(slots)}{f' ({stale} stale)' if stale else ''}"
        return "cannot run" if any(slot.problem for slot in slots) else words

    places = defaultdict(list)
    for slot in slots:
        keys = [key for axis, key in slot.run.point.items() if axis != SEED]
        row = evidence.experiment.label(keys[0], *keys[1:-1]) if keys else slot.run.pipeline
        places[row, *keys[1:][-1:]].append(slot)
    columns = list(dict.fromkeys(place[1:] for place in places))
    rows = dict.fromkeys(place[0] for place in places)
    body = [[row, *(count(places[row, *column]) for column in columns)] for row in rows]
    body = [["", *(" ".join(column) or "runs" for column in columns)], *body]
    return [f"  {line}" for line in aligned(body)]


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines with the texts of each column below each other."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]


def _work(evidence: Evidence) -> str:
    """A sentence on what is to be run and how long that should take."""
    missing, store = [slot for slot in evidence.slots if slot.missing], evidence.store
    stages = [entry.stage for slot in missing for entry in slot.entries if entry.stage is not None]
    if not stages or store is None:
        return "Nothing to run."
    todo = pending(store, stages, bare=[stage.id for stage in stages])
    stale = sum(slot.stale for slot in missing)
    least = "" if all(slot.whole for slot in missing) else "at least "
    kinds = ", ".join(f"{count} {kind}" for kind, count in Counter(stage.kind for stage in todo).items())
    words = f"{len(missing)} to run{f', {stale} of them stale' if stale else ''}: "
    work = f"{least}{len(todo)} stages ({kinds}), {least}{_time(todo, store)}"
    words += f"{work if todo else 'this machine has its own records of all their stages'}."
    if again := sum(store.usable(stage) is not None for stage in todo):
        words += f" {again} of these train an adapter again that is no longer under outputs/."
    return f"{words} {unused(evidence, missing)}".rstrip()


def unused(evidence: Evidence, missing: Sequence[Slot]) -> str:
    """A sentence if the table would not use what this machine records for its missing runs; else empty."""
    stages = (entry.stage for slot in missing for entry in slot.entries if entry.stage is not None)
    here = next((stage.where() for stage in stages), evidence.where)
    if here == evidence.where:
        return ""
    own = here.partition("-")[0]
    device, _, arithmetic = evidence.where.partition("-")
    same = device == own and arithmetic in ("bfloat16", "float32")
    add = f"type model.arithmetic={arithmetic}" if same else "run them on another device"
    return (
        f"This machine would record the missing runs as {here}, which a table of {evidence.where} does not use; to add "
        f"to those, {add}, and for a table of {here} type model.device={own}."
    )


def _time(todo: Sequence[Stage], store: Store) -> str:
    """The time of the stages one after another, as text: for each the median of the most similar past stages."""
    past = defaultdict(list)
    for record in store.tracked:
        if (seconds := getattr(record.result, "seconds", None)) is not None:
            past[_traits(record.kind, record.where, record.asked)].append(seconds)
    total, unknown = 0.0, len(todo)
    for traits, count in Counter(_traits(stage.kind, stage.where(), stage.described()) for stage in todo).items():
        likeness = {other: [*map(str.__eq__, traits, other)] for other in past if other[0] == traits[0]}
        if likeness:
            alike = [other for other, like in likeness.items() if like == max(likeness.values())]
            total += count * statistics.median(seconds for other in alike for seconds in past[other])
            unknown -= count
    words = f"about {duration(total)} one after another, by the timings of past runs"
    words += f" ({unknown} of them, unlike any past run, are not counted)" if unknown else ""
    return words if unknown < len(todo) else "their time unknown, as no past run is like them"


def _traits(kind: str, where: str, asked: Mapping[str, Any]) -> tuple[str, ...]:
    """The traits that decide how long a stage takes, most important first."""
    of = asked.get("of", asked)
    trains = of.get("adapters", [of.get("train", of.get("of", of))])
    names = [sorted({str(train.get(key, {}).get("name")) for train in trains}) for key in ("task", "method")]
    backbone = trains[0].get("reads", asked.get("reads", {})).get("backbone")
    training = {name: value for name, value in (asked.get("training") or {}).items() if name not in RATES}
    work = [training, *(asked.get(name) for name in ("evaluation", "benchmarks"))]
    return (kind, where, *map(str, (backbone, work, of.get("kind"), *names)))


def duration(value: float) -> str:
    """Seconds in words: ``3 h 20 min``, ``12 min``, ``40 s``."""
    hours, minutes = divmod(round(value / 60), 60)
    return f"{value:.0f} s" if value < 90 else f"{hours} h {minutes:02d} min" if hours else f"{minutes} min"
