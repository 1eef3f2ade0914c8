"""The command on Table 1, and made-up records of its runs."""

from __future__ import annotations

import json
from pathlib import Path

from hiplora import reproduce
from hiplora.report.slots import Entry, Slot
from hiplora.stages.record import Record
from tests.report.evidence import everything, labelled

ROOT = Path(reproduce.__file__).resolve().parents[1]


def recorded(entry: Entry, needs: dict[str, str], **changes) -> Record:
    """A fixture of the same label under the identity of a stage."""
    label = dict(zip(("task", "seed"), entry.members[0], strict=True), method="lora") if entry.members else {}
    (fixture,) = labelled(everything, entry.role, **label)
    told = {"id": entry.stage.id, "where": entry.stage.where(), "name": entry.stage.name()}
    return fixture.model_copy(update={**told, "asked": entry.stage.described(), "needs": needs, **changes})


def tracked(results: Path, lora: list[Slot], role: str, number: int = 0) -> tuple[Path, dict]:
    """A record's file and content: of LoRA's first run, MMLU with seed 42, or another."""
    (entry,) = (entry for entry in lora[number].entries if entry.role == role)
    (path,) = (results / "mini/records").glob(f"*/*-{entry.stage.id}.*.json")
    return path, json.loads(path.read_text())


def run(results, *words: str) -> int:
    return reproduce.main(["table1", *words, f"results_dir={results}"])
