"""The worked examples of docs/extending.md, as they stand there, in a copy of the project."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from tests.e2e.commands import forked

pytestmark = pytest.mark.e2e
ROOT = Path(__file__).resolve().parents[2]
BLOCK = re.compile(r"```(?:python|yaml)\n# (\S+)\n(.*?)```", re.DOTALL)
REGISTRIES = {"METHODS": "hiplora/methods/__init__.py", "PIPELINES": "hiplora/pipelines/__init__.py"}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A copy of what a run reads."""
    target = tmp_path / "project"
    for name in ("hiplora", "conf"):
        shutil.copytree(ROOT / name, target / name, ignore=shutil.ignore_patterns("__pycache__"))
    return target


def content(project: Path) -> dict[str, str]:
    return {
        str(path.relative_to(project)): path.read_text()
        for path in project.rglob("*")
        if path.suffix in (".py", ".yaml")
    }


def add(project: Path, name: str) -> set[str]:
    """Do what the worked example of a name says; the files that were touched."""
    before = content(project)
    for place, text in BLOCK.findall((ROOT / "docs/extending.md").read_text()):
        if place in REGISTRIES and name in text:
            path = project / REGISTRIES[place]
            head, brace, tail = path.read_text().partition(f"{place}: dict[str, str] = {{\n")
            assert brace
            path.write_text(head + brace + text + tail)
        elif Path(place).stem == name:
            (project / place).write_text(text)
    after = content(project)
    return {name for name in after if after[name] != before.get(name)}


def run(project: Path, arguments: list[str], environment: dict[str, str], *words: str) -> str:
    done = forked([*arguments, *words], environment, folder=project)
    assert done.returncode == 0, done.stderr
    return done.stdout


def records(results: Path) -> list[dict]:
    return [json.loads(path.read_text()) for path in sorted((results / "mini/records").rglob("*.json"))]


def test_a_method_touches_three_files(project, arguments, environment, tmp_path: Path) -> None:
    assert add(project, "vera") == {"hiplora/methods/vera.py", "conf/method/vera.yaml", "hiplora/methods/__init__.py"}
    words = ["method=vera", "evaluation.code_execution=off", "training.lr=0.1"]
    arguments = [word for word in arguments if not word.startswith("method.")]
    printed = run(project, arguments, environment, *words)
    (train,) = (record for record in records(tmp_path / "results") if record["kind"] == "train")
    result = train["result"]
    assert result["deployed_parameters"] == result["trainable_parameters"] > 0
    assert result["curve"][-1]["loss"] < result["curve"][0]["loss"]
    assert "Forgotten outside gsm8k" in printed
    merge = ["pipeline=merge", "merge=ties", "merging.sizes=[2]", "merging.instances=1", "merging.training_seeds=[42]"]
    run(project, arguments, environment, *words, *merge)
    (merged,) = (r for r in records(tmp_path / "results") if r["asked"].get("of", {}).get("kind") == "merged")
    assert len(merged["needs"]) == 2
    assert f"train {train['name']}-{train['id']}" in run(project, arguments, environment, *words).split("Reused: ")[1]


def test_a_pipeline_touches_three_files(project, arguments, environment, tmp_path: Path) -> None:
    touched = {"hiplora/pipelines/sequence.py", "conf/pipeline/sequence.yaml", "hiplora/pipelines/__init__.py"}
    assert add(project, "sequence") == touched
    words = ["method=lora", "pipeline=sequence", "pipeline.order=[mmlu,gsm8k]", "evaluation.code_execution=off"]
    run(project, arguments, environment, *words)
    found = records(tmp_path / "results")
    first, second = sorted((r for r in found if r["kind"] == "train"), key=lambda record: len(record["needs"]))
    assert second["needs"] == {first["id"]: first["digest"]}
    assert second["name"] == "lora-mmlu+gsm8k-s42"
    assert sum(record["kind"] == "score" for record in found) == 3
    printed = run(project, arguments, environment, "method=lora", "task=mmlu", "evaluation.code_execution=off")
    assert f"train lora-mmlu-s42-{first['id']}" in printed.split("Reused: ")[1], "the single run's adapter is the first"
