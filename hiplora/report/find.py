"""The runs behind a table with their stages, and the tracked records with these stages' ids."""

from __future__ import annotations

import shlex
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from hiplora.compose import compose_cached
from hiplora.errors import UserError
from hiplora.pipelines.base import Config, known
from hiplora.pipelines.frontier import Frontiers, level_of
from hiplora.report.ahead import compose_ahead
from hiplora.report.evidence import Evidence
from hiplora.report.experiment import Experiment, Run, sweeps, with_settings
from hiplora.report.marks import STALE, marks_of
from hiplora.report.runs.fields import compared, flat, shown
from hiplora.report.slots import Entry, Slot
from hiplora.stages.base import Stage
from hiplora.stages.record import Record
from hiplora.stages.score import Score
from hiplora.stages.store import Store
from hiplora.stages.train import Train
from hiplora.tasks.source import Source, looked_up_once

MINI, LOCAL, HUB = "the project's mini-benchmarks", "benchmarks read from local files", "the full benchmarks"
DATA = {"mini": MINI, "local": LOCAL, "hub": HUB}
NATURAL = {"mini": "mini", "local": "mini", "hub": "paper"}  # the scale that each kind of data is meant for
MOST = 3  # differences that a note names, between the wanted records and those left out
LONGEST = 24  # characters of a value in such a difference
COMPUTED = ("model.device", "model.arithmetic")  # settings that choose the records of a table, which names their kind
# Settings that say where results are, or that change no number.
PLACES = ("data", "data.root", "scale", "results_dir", "outputs_dir", "logging", "save_basis", *COMPUTED)


@looked_up_once()
def identify(experiment: Experiment, settings: Sequence[str]) -> list[Slot]:
    """Every run with its stages, without records. Raises UserError if none composes or settings make two runs one."""
    slots: list[Slot] = []
    first: dict[Any, tuple[Run, Run]] = {}
    runs = with_settings(experiment.runs, settings, compose_cached)
    compose_ahead([run.overrides for run in runs])
    for plain, run in zip(experiment.runs, runs, strict=True):
        try:
            config, stages, whole, same = _asked(run)
        except UserError as error:
            slots.append(Slot(run=run, problem=str(error)))
            continue
        slots.append(Slot(run=run, config=config, entries=tuple(map(_entry, stages)), whole=whole))
        # Settings must not make two rows the same run: one of them would then have a wrong name.
        other, other_plain = first.setdefault((run.group, *same), (run, plain))
        apart = [axis for axis in run.point if run.point[axis] != other.point[axis]]
        if apart and settings and _asked(plain)[3] != _asked(other_plain)[3]:
            one, two = (" ".join(f"{axis}={each.point[axis]}" for axis in apart) for each in (other, run))
            raise UserError(
                f"With these settings {one} and {two} are the same run; leave out the setting that does it."
            )
    if slots and all(slot.problem for slot in slots):
        raise UserError(slots[0].problem or "")
    return slots


def _asked(run: Run) -> tuple[Config, Sequence[Stage], bool, tuple[str, ...]]:
    """A run's configuration, the stages known without records, whether these are all, and a key equal for equal runs.

    If further stages depend on results, only the pipeline and the operator may distinguish two runs. Raises UserError
    if the run does not compose or a file that a stage reads is missing.
    """
    config = compose_cached(run.overrides)
    stages, whole = known(config, lambda stage: None)
    later = () if whole else (repr(config.pipeline), repr(config.merge))
    return config, stages, whole, (*(stage.id for stage in stages), *later)


def _entry(stage: Stage) -> Entry:
    of: Any = getattr(stage, "of", stage)
    train = of if isinstance(of, Train) else getattr(of, "train", None)
    members = getattr(of, "members", [(train.task.name, train.seed)] if train is not None else [])
    return Entry(role=of.role if isinstance(stage, Score) else stage.kind, members=tuple(members), stage=stage)


def ways(slots: Sequence[Slot], command: str) -> tuple[str, ...]:
    """The commands that make the missing runs of these slots; last ``command``, which also renders the table."""
    missing = sweeps([slot.run for slot in slots if slot.missing])
    commands = [shlex.join(["python", "-m", "hiplora.run", "-m", *words]) for words in missing]
    return (*commands, "# or all of it, and then the table:", command) if commands else ()


@looked_up_once()
def gather(experiment: Experiment, slots: Sequence[Slot], *, settings: Sequence[str], command: str) -> Evidence:
    """The runs of an experiment with their records; ``command`` makes the whole table, ``settings`` are the user's."""
    composed = (slot.config for slot in slots if slot.config is not None)
    config = next(composed, None) or compose_cached(settings)  # a table of conf/ itself has no runs
    store = Store(config.places, local=False)
    stages = {entry.stage.id: entry.stage for slot in slots for entry in slot.entries if entry.stage is not None}
    counts = Counter(where for id, where in store.tracked.names() if id in stages)
    # All records of a table come from one kind of device and arithmetic: the typed one, or the one that most have.
    here = next((stage.where() for stage in stages.values()), config.model.where())
    typed = any(word.partition("=")[0] in COMPUTED for word in settings)
    where = here if typed else min(counts, key=lambda name: (-counts[name], name), default=here)
    slots = [_filled(slot, store, where) for slot in slots]
    others = counts.total() - counts[where]
    notes = [
        *_problem_notes(experiment, slots),
        *(f"Left out and counted as missing: {sentence}" for sentence in store.tracked.broken),
    ]
    asides = [
        *([f"{others} record(s) of the same stages are left out, as they are not of {where}."] if others else []),
        *ignored_notes(store, [entry for slot in slots for entry in slot.entries]),
    ]
    scale = [f"scale={config.scale}"] if config.scale != NATURAL[config.data.name] else []
    model = config.model
    named = {"hub": model.path, "folder": model.label, "packaged": Path(model.path).name.removesuffix(".gguf")}
    return Evidence(
        experiment=experiment,
        slots=slots,
        folder=config.places.results,
        backbone=f"{named[model.source]} ({model.dtype})",
        data=DATA[config.data.name],
        scale=config.scale,
        where=where,
        changed=(*scale, *sorted(word for word in settings if word.partition("=")[0] not in PLACES)),
        notes=tuple(notes),
        asides=tuple(asides),
        commands=ways(slots, command),
        store=store,
        levels=_levels(slots),
        texts=Source(config.data).texts(config.evaluation.splits),
    )


def _levels(slots: Sequence[Slot]) -> dict[str, float]:
    """The level of every task whose adapters are compared at one, as their runs are told it."""
    configs = (slot.config for slot in slots if slot.config is not None)
    of = {config.task.name: config for config in configs if isinstance(config.pipeline, Frontiers)}
    return {task: level for task, config in of.items() if (level := level_of(config)) is not None}


def _filled(slot: Slot, store: Store, where: str) -> Slot:
    """A slot with the records of its entries; if later stages depend on results, as far as the results go."""

    def filled(stage: Stage) -> Entry:
        record = store.tracked.get((stage.id, where))
        return replace(_entry(stage), record=record, marks="" if record is None else marks_of(record, store))

    def answer(stage: Stage) -> Record | None:
        entry = filled(stage)
        return None if STALE in entry.marks else entry.record

    stages, whole = [entry.stage for entry in slot.entries if entry.stage is not None], slot.whole
    if not whole and slot.config is not None:
        try:
            stages, whole = known(slot.config, answer)
        except UserError as error:  # the results do not allow the next stages
            return replace(slot, entries=tuple(map(filled, stages)), problem=str(error))
    return replace(slot, entries=tuple(map(filled, stages)), whole=whole)


def _problem_notes(experiment: Experiment, slots: Sequence[Slot]) -> Iterator[str]:
    """Notes on rows that cannot be run, each reason once."""
    refused = [slot for slot in slots if slot.problem is not None]
    for pipeline, problem in dict.fromkeys((slot.run.pipeline, slot.problem) for slot in refused):
        runs = [slot.run for slot in refused if (slot.run.pipeline, slot.problem) == (pipeline, problem)]
        labels = dict.fromkeys(experiment.label(next(iter(run.point.values()))) for run in runs)
        yield f"{', '.join(labels)} cannot be run in pipeline {pipeline}: {problem}"


def ignored_notes(store: Store, wanted: Sequence[Entry]) -> Iterator[str]:
    """A note on records that have a wanted stage's name but another id: counted and explained, never averaged in."""
    stages = {entry.stage.id: (entry.stage, entry.record) for entry in wanted if entry.stage is not None}
    by_name = defaultdict(list)
    for stage, record in stages.values():
        by_name[stage.kind, stage.name()].append((stage, record))
    reasons: Counter[str] = Counter()
    for key, name in store.tracked.names().items():
        if key[0] not in stages and name in by_name and (other := store.tracked.get(key)) is not None:
            alike = [record.asked if record is not None else stage.described() for stage, record in by_name[name]]
            closest = min(alike, key=lambda asked: len(compared(flat(other.asked), flat(asked))))
            reasons[difference(other.asked, closest)] += 1
    if reasons:
        often = reasons.most_common(MOST)
        rest = reasons.total() - sum(count for _, count in often)
        shown = [*(f"{reason} ({count})" for reason, count in often), *([f"in other ways ({rest})"] if rest else [])]
        folder = shlex.join(["--results", str(store.places.results)])
        yield (
            f"{reasons.total()} other record(s) of the same methods, tasks and seeds are left out, as they were made "
            f"under other settings: {'; '.join(shown)}. `python -m hiplora.runs {folder}` lists every record; with "
            "`diff ID ID` it shows how two differ."
        )


def difference(theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> str:
    """How two identities differ, such as ``training.steps=20, not 60``: the first field, and how many more."""
    found = compared(flat(theirs), flat(ours))
    if not found:
        return "an earlier version of the code"
    name, (one, other) = next(iter(found.items()))
    more = f" and {len(found) - 1} more" if len(found) > 1 else ""
    file = name.removeprefix("reads.")
    return (f"{name}={_short(one)}, not {_short(other)}" if file == name else f"another {file}") + more


def _short(value: Any) -> str:
    """A value as text, shortened to its beginning."""
    text = shown(value)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}…"
