"""Evidence from the committed fixture records: synthetic numbers, simple functions of method, task and seed."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from hiplora.records import load_records
from hiplora.report.commands import shell, sweeps
from hiplora.report.evidence import Evidence, Setting, Slot, missing_slots, paper_values
from hiplora.report.experiment import Experiment, Wanted, load

HERE = Path(__file__).parent


def fixture_records(pipeline: str) -> list[dict[str, Any]]:
    return load_records(HERE, pipeline)


def matches(record: dict[str, Any], wanted: Wanted) -> bool:
    """By labels; an operator or calibration that the grid does not vary is addition without calibration."""
    merge = {"merge": "addition", "calibration": "none"} if wanted.pipeline == "merge" else {}
    return all(str(record["labels"].get(axis)) == key for axis, key in {**merge, **wanted.point}.items())


def fixture_evidence(name: str, *, keep: Any = lambda record: True) -> Evidence:
    """Evidence of one experiment; fixtures are matched by their labels, as their ids are made up."""
    experiment: Experiment = load(name)
    slots = []
    for wanted in experiment.wanted():
        found = [r for r in fixture_records(wanted.pipeline) if matches(r, wanted) and keep(r)]
        assert len(found) <= 1
        slots.append(Slot(wanted=wanted, record=found[0] if found else None))
    return Evidence(
        experiment=experiment,
        slots=slots,
        setting=Setting(folder=HERE, backbone="Fixture (float32)", data="synthetic records", scale="mini"),
        paper=paper_values(),
        commands=tuple(shell(words) for words in sweeps([slot.wanted for slot in missing_slots(slots)])),
    )


def golden(path: Path, text: str) -> str:
    """The expected text; ``HIPLORA_WRITE_GOLDEN=1 pytest tests/report`` rewrites it after a change that was meant."""
    if os.environ.get("HIPLORA_WRITE_GOLDEN"):
        path.write_text(text)
    return path.read_text()
