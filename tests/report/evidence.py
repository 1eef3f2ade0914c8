"""Evidence from the committed fixture records: synthetic numbers, simple functions of method, task and seed."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

from hiplora.report.experiment import Run, load, sweeps
from hiplora.report.frame import Entry, Evidence, Slot
from hiplora.stages.record import Record
from hiplora.stages.store import Records
from tests.report.frontiers import LEVELS, World

HERE = Path(__file__).parent
RECORDS = list(Records(HERE / "records"))
ADDITION = {"merge": "addition", "calibration": "none"}  # what a grid means that does not vary the operator

Keep = Callable[[dict[str, Any]], bool]


def everything(label: dict[str, Any]) -> bool:
    return True


def labelled(keep: Keep, role: str, **label: Any) -> list[Record]:
    """Fixtures by what they are called, as their ids are made up; merge instances in the order of their draw."""
    found = [record for record in RECORDS if record.asked["fixture"]["role"] == role]
    found = [r for r in found if all(str(r.asked["fixture"][key]) == str(value) for key, value in label.items())]
    return sorted((r for r in found if keep(r.asked["fixture"])), key=lambda r: r.asked["fixture"].get("position", 0))


def single(run: Run, keep: Keep) -> Iterator[Entry]:
    member = (run.point["task"], int(run.point["seed"]))
    for role, label in {"train": run.point, "backbone": {}, "adapter": run.point}.items():
        (record,) = labelled(keep, role, **label) or [None]
        yield Entry(role=role, members=(member,) if label else (), record=record)


def merged(run: Run, keep: Keep) -> Iterator[Entry]:
    """Each member's score alone, then the instances: those of LoRA where the run's own are missing."""
    drawn = labelled(everything, "merged", **ADDITION, method="lora", seed=run.point["seed"])
    fixed = dict(word.split("=") for word in run.fixed if word.startswith("merge="))
    there = labelled(keep, "merged", **{**ADDITION, **fixed, **run.point})
    members = [tuple((task, seed) for task, seed in record.asked["fixture"]["members"]) for record in drawn]
    for task, seed in dict.fromkeys(member for instance in members for member in instance):
        (alone,) = labelled(keep, "before", method=run.point["method"], task=task, seed=seed) or [None]
        yield Entry(role="adapter", members=((task, seed),), record=alone)
    for position, instance in enumerate(members):
        yield Entry(role="merged", members=instance, record=there[position] if there else None)


# HiP-LoRA forgets a fifth less than LoRA, Proj-LoRA a twentieth; directions that mean nothing do not help.
WORLD = World(
    forgets={"hip": 0.8, "hip_free": 0.82, "proj": 0.95, "proj_random": 0.97, "inside_top": 1.3},
    learns={"hip_free": 0.99},
    keeps={"hip": 0.7, "hip_free": 0.7, "proj": 0.52},
)


def drift(run: Run, keep: Keep) -> Iterator[Entry]:
    member = (run.point["task"], int(run.point["seed"]))
    (record,) = labelled(keep, "drift", **run.point) or [None]
    yield Entry(role="drift", members=(member,), record=record)


def probe(run: Run, keep: Keep) -> Iterator[Entry]:
    (record,) = labelled(keep, "probe") or [None]
    yield Entry(role="probe", record=record)


def fixture_evidence(name: str, *, keep: Keep = everything, world: World = WORLD) -> Evidence:
    """Evidence of one experiment; ``keep`` says of the label of a fixture whether it is there."""
    experiment = load(name)
    entries: dict[str, Any] = {"single": single, "merge": merged, "probe": probe, "drift": drift}
    entries |= {"frontier": world.frontier, "matched_merge": world.matched_merge}
    slots = [Slot(run=run, entries=tuple(entries[run.pipeline](run, keep))) for run in experiment.runs]
    evidence = Evidence(
        experiment=experiment,
        slots=slots,
        folder=HERE,
        backbone="Fixture (float32)",
        data="synthetic records",
        scale="mini",
        where="cpu-float32",
        levels=LEVELS,
    )
    return replace(evidence, commands=commands(evidence))


def commands(evidence: Evidence) -> tuple[str, ...]:
    """What fills the table."""
    missing = sweeps([slot.run for slot in evidence.slots if slot.missing])
    return tuple(shlex.join(["python", "-m", "hiplora.run", "-m", *words]) for words in missing)


def build(name: str, evidence: Evidence) -> Any:
    kind = "figures" if name.startswith("figure") else "tables"
    return import_module(f"hiplora.report.{kind}.{name}").build(evidence)


def golden(path: Path, text: str) -> str:
    """The expected text; ``HIPLORA_WRITE_GOLDEN=1 pytest tests/report`` rewrites it after a change that was meant."""
    if os.environ.get("HIPLORA_WRITE_GOLDEN"):
        path.write_text(text)
    return path.read_text()
