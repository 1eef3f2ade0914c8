"""From wanted runs and the records found for them to the evidence that plans and tables are made from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hiplora.config import RunConfig
from hiplora.report.commands import shell, sweeps
from hiplora.report.evidence import Evidence, Record, Setting, Slot, missing_slots, paper_values
from hiplora.report.experiment import Experiment
from hiplora.report.ignored import ignored_notes

DATA = {
    "mini": "the project's mini-benchmarks",
    "local": "benchmarks read from local files",
    "hub": "the full benchmarks",
}


@dataclass(frozen=True, kw_only=True)
class Match:
    """A wanted run, its configuration and identity (None where it cannot be composed), the records beside it."""

    slot: Slot
    config: RunConfig | None = None
    identity: str | None = None


# What a user says of where results lie, and what changes no number.
PLACES = ("data", "data.root", "scale", "results_dir", "outputs_dir", "logging", "save_basis")
NATURAL = {"mini": "mini", "local": "mini", "hub": "paper"}  # the scale that each kind of data is meant for


def evidence(
    experiment: Experiment,
    matches: Sequence[Match],
    *,
    beside: Sequence[Record],
    command: str,
    settings: Sequence[str] = (),
) -> Evidence:
    """What a table and a plan are made from.

    ``beside`` holds every record that lies in the folders of the wanted runs; ``command`` runs what is missing;
    ``settings`` are the overrides that the user gave for all runs.
    """
    known = [(m.identity, m.config) for m in matches if m.config is not None and m.identity is not None]
    slots = [m.slot for m in matches]
    commands = [shell(words) for words in sweeps([slot.wanted for slot in missing_slots(slots)])]
    return Evidence(
        experiment=experiment,
        slots=slots,
        setting=setting(known[0][1], settings),
        paper=paper_values(),
        notes=(
            *_problem_notes(experiment, slots),
            *ignored_notes([(identity, config.resolved()) for identity, config in known], beside),
        ),
        commands=(*commands, "# or all of it, and then the table:", command) if commands else (),
    )


def _problem_notes(experiment: Experiment, slots: Sequence[Slot]) -> list[str]:
    """Why rows cannot be run, each reason once."""
    rows: dict[tuple[str, str], list[str]] = {}
    for slot in slots:
        if slot.problem is not None:
            label = experiment.label(next(iter(slot.wanted.point.values())))
            rows.setdefault((slot.wanted.pipeline, slot.problem), []).append(label)
    return [
        f"{', '.join(dict.fromkeys(labels))} cannot be run in pipeline {pipeline}: {problem}"
        for (pipeline, problem), labels in rows.items()
    ]


def setting(config: RunConfig, settings: Sequence[str] = ()) -> Setting:
    """What the caption says of the configuration, and where its results lie."""
    model = config.model
    changed = [word for word in settings if word.split("=", 1)[0] not in PLACES]
    scale = [f"scale={config.scale}"] if config.scale != NATURAL[config.data.name] else []
    name = model.path if model.source == "hub" else model.path.rsplit("/", 1)[-1].removesuffix(".gguf")
    return Setting(
        folder=results_folder(config),
        backbone=f"{name} ({model.dtype})",
        data=DATA[config.data.name],
        scale=config.scale,
        changed=(*scale, *sorted(changed)),
    )


def results_folder(config: RunConfig) -> Path:
    """``results/<data>``."""
    return Path(config.results_dir) / config.data.name
