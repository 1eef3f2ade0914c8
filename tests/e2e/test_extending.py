"""The worked examples of docs/extending.md, as they stand there, in a copy of the project."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
from pathlib import Path
from types import ModuleType

import pytest
import torch

from hiplora.merging import apply
from hiplora.mini import materialise
from hiplora.updates import Dense
from tests.commands import forked
from tests.merging.makers import adapter, dense
from tests.records import records, scores
from tests.report.evidence import fixture_evidence

pytestmark = pytest.mark.e2e
ROOT = Path(__file__).resolve().parents[2]
BLOCK = re.compile(r"```(?:python|yaml)\n# (\S+)\n(.*?)```", re.DOTALL)
# Where the line of an example goes: a file, and what it follows there.
REGISTRIES = {
    "METHODS": ("hiplora/methods/__init__.py", "METHODS: dict[str, str] = {\n"),
    "PIPELINES": ("hiplora/pipelines/__init__.py", "PIPELINES: dict[str, str] = {\n"),
    "TASKS": ("hiplora/tasks/__init__.py", "TASKS: dict[str, str] = {\n"),
    "ORIGINS": ("hiplora/tasks/origins.py", "ORIGINS = {\n"),
    "revisions": ("conf/data/hub.yaml", "  revisions:\n"),
    "OPERATORS": ("hiplora/merging/__init__.py", "OPERATORS: dict[str, str] = {\n"),
    "TABLES": ("hiplora/report/tables/__init__.py", "TABLES = (\n"),
    "FIGURES": ("hiplora/report/figures/__init__.py", "FIGURES = ("),
}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A copy of what runs and tables read."""
    target = tmp_path / "project"
    for name in ("hiplora", "conf", "results/paper"):
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
            file, opening = REGISTRIES[place]
            head, found, tail = (project / file).read_text().partition(opening)
            assert found
            (project / file).write_text(head + found + text + tail)
        elif Path(place).stem == name:
            (project / place).write_text(text)
    after = content(project)
    return {name for name in after if after[name] != before.get(name)}


def run(project: Path, arguments: list[str], environment: dict[str, str], *words: str) -> str:
    done = forked([*arguments, *words], environment, folder=project)
    assert done.returncode == 0, done.stderr
    return done.stdout


def module(project: Path, place: str) -> ModuleType:
    """A file of the copy as a module, on top of the project's own packages."""
    spec = importlib.util.spec_from_file_location(Path(place).stem, project / place)
    assert spec is not None
    assert spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


def rendered(project: Path, name: str, environment: dict[str, str], results: Path, backbone: Path) -> str:
    """What ``python -m hiplora.reproduce`` prints of an exhibit none of whose runs is there."""
    words = [name, "--render-only", "model=folder", f"model.path={backbone}", f"results_dir={results}"]
    done = forked(words, environment, folder=project, module="hiplora.reproduce")
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_method_touches_three_files(project, arguments, environment, tmp_path: Path) -> None:
    assert add(project, "vera") == {"hiplora/methods/vera.py", "conf/method/vera.yaml", "hiplora/methods/__init__.py"}
    words = ["method=vera", "evaluation.code_execution=off", "training.lr=0.1"]
    arguments = [word for word in arguments if not word.startswith("method.")]
    printed = run(project, arguments, environment, *words)
    (train,) = records(tmp_path / "results", "train")
    result = train["result"]
    assert result["deployed_parameters"] == result["trainable_parameters"] > 0
    assert result["curve"][-1]["loss"] < result["curve"][0]["loss"]
    assert "Forgotten outside gsm8k" in printed
    merge = ["pipeline=merge", "merge=ties", "merging.sizes=[2]", "merging.instances=1", "merging.training_seeds=[42]"]
    run(project, arguments, environment, *words, *merge)
    (merged,) = scores(tmp_path / "results", "merged")
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


def test_a_benchmark_touches_six_files(project, arguments, environment, cache: Path, tmp_path: Path) -> None:
    places = {"hiplora/tasks/__init__.py", "hiplora/tasks/origins.py", "conf/data/hub.yaml"}
    assert add(project, "sciq") == places | {"hiplora/tasks/sciq.py", "hiplora/tasks/sciq.yaml", "conf/task/sciq.yaml"}
    root = tmp_path / "data"
    shutil.copytree(materialise(cache), root)
    (root / "sciq").mkdir()
    for split, things in {"train": range(40), "validation": range(40, 44), "test": range(50, 60)}.items():
        others = {f"distractor{n}": colour for n, colour in enumerate(("green", "blue", "grey"), start=1)}
        rows = [{"question": f"Which colour has thing {n}?", "correct_answer": "red", **others} for n in things]
        lines = [json.dumps({**row, "support": "Things are red." if n % 2 else ""}) for n, row in enumerate(rows)]
        (root / "sciq" / f"{split}.jsonl").write_text("\n".join(lines))
    words = ["method=lora", "task=sciq", "data=local", f"data.root={root}", "evaluation.code_execution=off"]
    printed = run(project, arguments, environment, *words)
    assert "Forgotten outside sciq" in printed
    found = records(tmp_path / "results", data="local")
    (train,) = (record for record in found if record["kind"] == "train")
    assert (train["name"], train["result"]["examples"]) == ("lora-sciq-s42", 40)
    for score in (record for record in found if record["kind"] == "score"):
        own = score["result"]["benchmarks"]["sciq"]
        assert own["n"] == 4
        assert own["nll"] > 0
        assert 0 <= own["acc"] <= 1
    item = {"id": "0", "question": "Which?", "choices": ["blue", "red"], "answer": 1, "support": "Things are red."}
    task = module(project, "hiplora/tasks/sciq.py").SciQ(scoring="letter")
    assert task.prompt(item).endswith("Things are red.\nWhich?\nA. blue\nB. red\n\n### Response:\n")
    assert task.answer(item) == "B"


def test_an_operator_touches_three_files(project, arguments, environment, tmp_path: Path) -> None:
    touched = {"hiplora/merging/magmax.py", "conf/merge/magmax.yaml", "hiplora/merging/__init__.py"}
    assert add(project, "magmax") == touched
    operator = module(project, "hiplora/merging/magmax.py").MagMax(name="magmax", scale=0.5)
    adapters = [adapter(seed) for seed in range(3)]
    merged = dense(apply(operator, adapters).updates)
    for name, matrix in merged.items():
        every = torch.stack([dense(each)[name] for each in adapters])
        high, low = every.amax(0), every.amin(0)
        torch.testing.assert_close(matrix, 0.5 * torch.where(high >= -low, high, low))
    (one,) = apply(operator, [{"w": Dense(torch.tensor([[1.0, -3.0]]))}]).updates.values()
    assert one.dense().tolist() == [[0.5, -1.5]]
    small = ["merging.sizes=[2]", "merging.instances=1", "merging.training_seeds=[42]"]
    words = ["method=lora", "pipeline=merge", "merge=magmax", "evaluation.likelihood_only=true", *small]
    run(project, arguments, environment, *words)
    (made,) = scores(tmp_path / "results", "merged")
    assert made["name"].startswith("lora-magmax-")
    assert made["result"]["report"]["operator"] == "magmax"


def test_a_table_touches_three_files(project, environment, backbone: Path, tmp_path: Path) -> None:
    touched = {"hiplora/report/tables/left.py", "conf/experiment/left.yaml", "hiplora/report/tables/__init__.py"}
    assert add(project, "left") == touched
    left, folder = module(project, "hiplora/report/tables/left.py"), project / "conf/experiment"
    evidence = fixture_evidence("left", folder=folder)
    table = left.build(evidence)
    of = [entry.record.result for slot in evidence.slots for entry in slot.entries if entry.record is not None]
    cell = table.cell("LoRA", "Final loss (nats/token)")
    assert (cell.value, cell.n, cell.n_expected) == (pytest.approx(of[0].final_loss), 3, 3)
    assert table.cell("HiP-LoRA", "Adapter (MB)").value == pytest.approx(of[0].adapter_bytes / 1e6)
    assert table.cell("HiP-LoRA", "In leading directions (%)").value is None, "no fixture has this figure"
    short = fixture_evidence("left", folder=folder, keep=lambda label: (label["task"], label["seed"]) != ("code", 42))
    assert left.build(short).cell("LoRA", "Final loss (nats/token)").n == 2, "a seed counts with all its adapters"
    printed = rendered(project, "left", environment, tmp_path / "results", backbone)
    assert "What a training leaves" in printed
    assert (tmp_path / "results/mini/tables").is_dir()


def test_a_figure_touches_three_files(project, environment, backbone: Path, tmp_path: Path) -> None:
    touched = {"hiplora/report/figures/stages.py", "conf/experiment/stages.yaml", "hiplora/report/figures/__init__.py"}
    assert add(project, "stages") == touched
    stages = module(project, "hiplora/report/figures/stages.py")
    figure = stages.build(fixture_evidence("stages", folder=project / "conf/experiment"))
    # The fixtures' line: at 50 % before the first stage, at 71 % in the mean of the seeds after it, then 4 points less.
    first = figure.panel("mmlu")["LoRA"]
    assert [each.x for each in first] == [0, 1, 2, 3, 4]
    assert [each.y for each in first] == pytest.approx([50, 71, 67, 63, 59])
    assert [each.n for each in figure.panel("code")["HiP-LoRA"]] == [3, 3, 3, 3, 2]
    assert {path.suffix for path in figure.write(tmp_path)} == {".png", ".pdf", ".csv", ".md"}
    printed = rendered(project, "stages", environment, tmp_path / "results", backbone)
    assert "Every benchmark along continual tuning" in printed
    assert "pipeline=continual" in printed
