"""The notebook of docs/, cell after cell, on the tiny model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.records import records
from tests.tiny import SMALL

pytestmark = [pytest.mark.e2e, pytest.mark.slow]
NOTEBOOK = Path(__file__).resolve().parents[2] / "docs/walkthrough.ipynb"


def cells(kind: str) -> list[dict[str, Any]]:
    return [cell for cell in json.loads(NOTEBOOK.read_text())["cells"] if cell["cell_type"] == kind]


def test_it_trains_evaluates_merges_and_shows(backbone: Path, cache: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name, value in {"HIPLORA_CACHE": str(cache), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PYTHONPATH", str(NOTEBOOK.parents[1]))
    settings, *others = ("".join(cell["source"]) for cell in cells("code"))
    space: dict[str, Any] = {}
    exec(settings, space)
    model = [word for word in SMALL if word.startswith("model.") or word == "model=folder"]
    small = [word for word in SMALL if word not in model and not word.startswith("method.")]
    space |= {"MODEL": [*model, f"model.path={backbone}"], "QUICK": [*small, "evaluation.code_execution=off"]}
    for text in others:
        exec(text, space)
    work = tmp_path / "walkthrough"
    scores = records(work / "results", "score")
    assert all("custom" in record["result"]["benchmarks"] for record in scores)
    assert len(scores) >= 4, "backbone, two adapters and their merge"
    assert (work / "merged/adapter_model.safetensors").is_file()
    page = (work / "report.html").read_text()
    assert "hip-custom-s42" in page


def test_nothing_that_it_printed_is_stored() -> None:
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in cells("code"))
