"""LoRA's runs of Table 1, and a folder with records of all of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from hiplora.report.experiment import load
from hiplora.report.find import identify
from hiplora.report.slots import Slot
from hiplora.stages import record as files
from tests.reproduce.helpers import recorded


@pytest.fixture(scope="session")
def lora() -> list[Slot]:
    """LoRA's runs of Table 1."""
    return [slot for slot in identify(load("table1"), []) if slot.run.point["method"] == "lora"]


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """A folder for results, called the same in every test: what is composed with it is kept for the next."""
    monkeypatch.chdir(tmp_path)
    return Path("results")


@pytest.fixture
def results(folder, lora) -> Path:
    """A folder of tracked records of all of LoRA's runs."""
    digests: dict[str, str] = {}
    for slot in lora:
        for entry in slot.entries:
            needs = {need.id: digests[need.id] for need in entry.stage.needs()}
            record = recorded(entry, needs)
            digests[record.id] = record.digest
            files.write(folder / "mini/records" / record.kind, record, [])
    return folder
