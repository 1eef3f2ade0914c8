"""Evidence from the committed fixture records: synthetic numbers, simple functions of method, task and seed."""

from __future__ import annotations

import itertools
import json
import os
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

from hiplora.report.evidence import Evidence
from hiplora.report.experiment import EXPERIMENTS, Run, load, sweeps
from hiplora.report.slots import Entry, Slot
from hiplora.stages.record import Record
from hiplora.stages.results import Scores
from hiplora.stages.store import Records
from hiplora.tasks import ORDER, primary
from tests.report import edits
from tests.report.frontiers import LEVELS, World
from tests.report.trainings import result

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
    fixed = dict(word.split("=") for word in run.fixed)
    label = {**ADDITION, **{axis: word for axis, word in fixed.items() if axis == "merge"}, **run.point}
    there = {record.asked["fixture"]["position"]: record for record in labelled(keep, "merged", **label)}
    members = asked_for(fixed, drawn)
    for task, seed in dict.fromkeys(member for instance in members.values() for member in instance):
        (alone,) = labelled(keep, "before", method=run.point["method"], task=task, seed=seed) or [None]
        yield Entry(role="adapter", members=((task, seed),), record=alone)
    for position, instance in members.items():
        yield Entry(role="merged", members=instance, record=there.get(position))


def asked_for(fixed: Mapping[str, str], drawn: Sequence[Record]) -> dict[int, tuple[tuple[str, int], ...]]:
    """Members by position of the instances that a grid asks for: of some sizes, the first ones of each."""
    sizes = json.loads(fixed.get("merging.sizes", "[2, 3, 4]"))
    count = int(fixed.get("merging.instances", len(drawn)))
    labels = [record.asked["fixture"] for record in drawn]
    members = {label["position"]: tuple((task, seed) for task, seed in label["members"]) for label in labels}
    chosen = [[at for at, each in members.items() if len(each) == size][:count] for size in sizes]
    return {at: members[at] for at in itertools.chain.from_iterable(chosen)}


def line(run: Run, keep: Keep) -> Iterator[Entry]:
    """A line of trainings whose scores are simple functions of method and stage, made of the single runs' fixtures.

    A task is at 50 %, gains 1 point in every stage before its own, is at 70 % after that (seed 100: 71 %, 2024: 72 %)
    and then loses ``loss`` points per stage; the NLL of its gold answers is 3 − score / 50. HiP-LoRA lacks the last
    stage of seed 2024, PiSSA, Proj-LoRA and OSF everything.
    """
    method, seed = run.point["method"], run.point["seed"]
    loss = {"lora": 4.0, "hip": 2.0, "olora": 3.0}.get(method)
    backbone, *_ = labelled(keep, "backbone") or [None]
    yield Entry(role="backbone", record=None if backbone is None else scored(backbone, "backbone", [50.0] * 4))
    for stage, task in enumerate(ORDER, start=1):
        found = labelled(everything, "adapter", method="lora", task=task, seed=42)
        lacks = loss is None or (method, seed, stage) == ("hip", "2024", 4) or not keep({"role": "line", **run.point})
        ago = [stage - own for own in range(1, 5)]
        shift = {"42": 0.0, "100": 1.0, "2024": 2.0}[seed]
        percents = [50.0 + stage if late < 0 else 70.0 + shift - (loss or 0) * late for late in ago]
        record = None if lacks else scored(found[0], f"{method}{seed}{stage}", percents)
        yield Entry(role="adapter", members=((task, int(seed)),), record=record)


def scored(record: Record, id: str, percents: list[float]) -> Record:
    """A fixture with other headline scores of the four tasks, and an id of its own."""
    scores = {
        task: {**record.result.benchmarks[task], primary(task): percent / 100, "nll": 3 - percent / 50}
        for task, percent in zip(ORDER, percents, strict=True)
    }
    result = record.result.model_copy(update={"benchmarks": {**record.result.benchmarks, **scores}})
    return record.model_copy(update={"id": id, "result": result})


# HiP-LoRA forgets a fifth less than LoRA, Proj-LoRA a twentieth; directions that mean nothing do not help.
# The settings of Figure 3 forget less the larger λ is, and learn less.
WORLD = World(
    forgets={
        "hip": 0.8, "hip_gated": 0.7, "hip_free": 0.82, "proj": 0.95, "proj_random": 0.97, "inside_top": 1.3,
        "l4": 0.9, "l3": 0.75, "l2": 0.7, "l1": 0.72, "g0": 0.85, "g2": 0.95,
    },
    learns={"hip_free": 0.99, "l4": 1.05, "l3": 1.02, "l2": 0.98, "g0": 1.04, "g2": 1.07},
    keeps={"hip": 0.7, "hip_free": 0.7, "proj": 0.52},
    shares={"lora": 0.15, "hip": 0.45, "proj": 0.0, "inside_top": 1.0},
)  # fmt: skip


def asked_as(run: Run, entries: Iterator[Entry]) -> Iterator[Entry]:
    """The entries; without any score but the gold answers' likelihood where the grid asks for no other."""
    for entry in entries:
        record = entry.record
        if "evaluation.likelihood_only=true" in run.fixed and record is not None and isinstance(record.result, Scores):
            found = {
                name: {metric: value if metric == "nll" else None for metric, value in scores.items()}
                for name, scores in record.result.benchmarks.items()
            }
            result = record.result.model_copy(update={"benchmarks": found})
            entry = replace(entry, record=record.model_copy(update={"result": result}))
        yield entry


def drift(run: Run, keep: Keep) -> Iterator[Entry]:
    member = (run.point["task"], int(run.point["seed"]))
    (record,) = labelled(keep, "drift", **run.point) or [None]
    yield Entry(role="drift", members=(member,), record=record)


def trained(run: Run, keep: Keep) -> Iterator[Entry]:
    """A training alone, with a curve and gains that are simple functions of what it is called."""
    task, seed = run.point.get("task", "gsm8k"), int(run.point["seed"])
    label = {"role": "train", "group": run.group, "method": run.point["method"], "task": task, "seed": seed}
    (fixture,) = labelled(everything, "train", method="hip", task="gsm8k", seed=42)
    id = "-".join(map(str, label.values()))
    made = fixture.model_copy(update={"id": id, "result": result(fixture.result, **label)})
    yield Entry(role="train", members=((task, seed),), record=made if keep(label) else None)


def matched(world: World) -> Callable[[Run, Keep], Iterator[Entry]]:
    """A training, which is a fixture of another pipeline with the energies of a world, and its frontier there."""

    def entries(run: Run, keep: Keep) -> Iterator[Entry]:
        arm, task, seed = run.point["method"], run.point.get("task", "gsm8k"), int(run.point["seed"])
        (fixture,) = labelled(everything, "train", method="hip", task="gsm8k", seed=42)
        result = fixture.result.model_copy(update={"measures": world.energy(arm, task, seed)})
        label = {"role": "train", "method": arm, "task": task, "seed": seed}
        record = fixture.model_copy(update={"id": f"{arm}-{task}-{seed}", "result": result})
        yield Entry(role="train", members=((task, seed),), record=record if keep(label) else None)
        yield from world.frontier(run, keep)

    return entries


def edit(run: Run, keep: Keep) -> Iterator[Entry]:
    """The bare backbone, a training, which is a fixture of another pipeline, and what became of the edits."""
    method, seed = run.point["method"], run.point["seed"]
    base, *_ = labelled(keep, "backbone") or [None]
    (train,) = labelled(keep, "train", method=method, task="gsm8k", seed=seed) or [None]
    result = edits.of_method(method, seed)
    lacks = base is None or train is None or result is None
    yield Entry(role="edit", record=None if base is None else edited(base, "backbone", edits.BASE))
    yield Entry(role="train", members=(("edits", int(seed)),), record=None if lacks else train)
    record = None if lacks else edited(train, f"{method}{seed}", result)
    yield Entry(role="edit", members=(("edits", int(seed)),), record=record)


def edited(record: Record, id: str, result: Any) -> Record:
    """A fixture with the result of edits and an id of its own."""
    return record.model_copy(update={"kind": "edit", "id": id, "result": result})


def efficiency(run: Run, keep: Keep) -> Iterator[Entry]:
    (record,) = labelled(keep, "efficiency") or [None]
    yield Entry(role="efficiency", record=record)


def probe(run: Run, keep: Keep) -> Iterator[Entry]:
    (record,) = labelled(keep, "probe") or [None]
    yield Entry(role="probe", record=record)


def fixture_evidence(
    name: str, *, keep: Keep = everything, world: World = WORLD, folder: Path = EXPERIMENTS
) -> Evidence:
    """Evidence of one experiment; ``keep`` says of the label of a fixture whether it is there."""
    experiment = load(name, folder)
    entries: dict[str, Any] = {
        "single": single,
        "merge": merged,
        "probe": probe,
        "efficiency": efficiency,
        "drift": drift,
        "continual": line,
        "edit": edit,
        "train": trained,
    }
    entries |= {"frontier": matched(world), "curve": matched(world), "matched_merge": world.matched_merge}
    slots = [Slot(run=run, entries=tuple(asked_as(run, entries[run.pipeline](run, keep)))) for run in experiment.runs]
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


def rescored(entry: Entry, **changes: dict[str, Any]) -> Entry:
    """An entry whose record has other metrics of some benchmarks."""
    if entry.record is None:
        return entry
    benchmarks = {name: {**scores, **changes.get(name, {})} for name, scores in entry.record.result.benchmarks.items()}
    result = entry.record.result.model_copy(update={"benchmarks": benchmarks})
    return replace(entry, record=entry.record.model_copy(update={"result": result}))


def with_slots(evidence: Evidence, change: Callable[[Slot], Slot]) -> Evidence:
    """The evidence with every slot changed."""
    return replace(evidence, slots=[change(slot) for slot in evidence.slots])
