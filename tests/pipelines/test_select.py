"""Selection with scripted records: which runs it asks for, whom it chooses, what it writes."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from hiplora import selection
from hiplora.compose import compose
from hiplora.errors import UserError
from hiplora.pipelines.base import Config
from hiplora.stages.frontier import Frontier
from hiplora.stages.train import Train
from tests.pipelines.scripted import Answers, small_grid

Configured = Callable[..., Config]
LORA = "pipeline.against=['method=lora','training.lr=5e-4']"
RATES = "['training.lr=2.5e-4','training.lr=5e-4','training.lr=1e-3']"
START = "['method=lora','method.r=4']", "['method=proj','method.k=8']"
GRID = [
    *small_grid("lora", "proj", lora=f"[{RATES},['method.r=2']]", proj=f"[{RATES},['method.k=4','method.k=16']]"),
    LORA,
    *(f"pipeline.methods.{name}.start={words}" for name, words in zip(("lora", "proj"), START, strict=True)),
    "pipeline.methods.lora.finalists=2",
    "pipeline.methods.proj.finalists=2",
    "pipeline.methods.proj.gated=true",
]


def world(train: Train) -> tuple[float, float, float]:
    """The highest rate learns most; Proj-LoRA with k = 4 forgets least, but its channel stands still."""
    method, lr = train.method.fields(), train.training.lr
    harm = 0.4 if method["name"] == "lora" else 0.3
    harm *= {2: 0.5}.get(method["r"], 1.0) * {4: 0.5, 16: 0.8}.get(method.get("k", 0), 1.0)
    gain = {2.5e-4: 0.5, 5e-4: 1.0, 1e-3: 1.2}[lr] * (0.6 if method["r"] == 2 else 1.0)
    return gain, harm, 0.5 if method.get("k") == 16 else 0.001


def test_stages_are_at_the_best_so_far_and_finals_decide(configured: Configured) -> None:
    config, answers = configured(*GRID), Answers(world)
    found = answers.drive(config)
    said = config.pipeline.conclude(config, found)
    chosen = selection.read(config.places.results)
    assert chosen is not None
    assert said is not None
    # Levels: the reference gains 1 at c = 1, so L = 3 − 0.75. A rate of 2.5e-4 never gets there.
    assert chosen.reference.levels == {"gsm8k": pytest.approx(2.25), "scienceqa": pytest.approx(2.25)}
    tried = {name: [t for t in chosen.trials if t.method == name] for name in ("lora", "proj")}
    assert [t.stage for t in tried["proj"]] == [1, 1, 1, 2, 2]
    assert [t.objective is None for t in tried["lora"]] == [True, False, False, True], "r = 2 gains too little"
    assert all(t.settings["training.lr"] == 1e-3 for t in tried["proj"][3:]), "at the best rate"
    reference, fast = tried["lora"][1], tried["lora"][2]
    assert reference.objective == pytest.approx(1)
    assert reference.first.c == 0.75
    assert fast.first.c == 0.625
    harms = (
        [point.harm for point in (reference, fast)]
        if hasattr(reference, "harm")
        else [t.first.text for t in (reference, fast)]
    )
    assert fast.objective == pytest.approx(harms[1] / harms[0])
    assert [len(t.runs) for t in tried["lora"]] == [0, 4, 4, 0]
    assert [bool(t.runs) for t in tried["proj"]] == [False, False, False, True, True], "the gated one is among them"
    assert chosen.winners["lora"] == {
        "training.steps": 60,
        "training.weight_decay": 0.01,
        "method.r": 4,
        "training.lr": 1e-3,
    }
    assert (chosen.winners["proj"] or {})["method.k"] == 4
    assert (chosen.gated["proj"] or {})["method.k"] == 16
    assert chosen.levels == {task: pytest.approx(3 - 0.75 * 1.2) for task in ("gsm8k", "scienceqa", "mmlu", "code")}
    assert "conf/method/proj.yaml: k: 4" in said
    assert "lr: 0.001}" in said


def test_everything_is_on_validation_and_trained_once(configured: Configured) -> None:
    config, answers = configured(*GRID), Answers(world)
    answers.drive(config)
    batches = answers.asked
    assert len(batches) == 6, "the reference and two stages, the reference and finals, levels"
    stages = {stage.id: stage for batch in batches for stage in batch}
    frontiers = [stage for stage in stages.values() if isinstance(stage, Frontier)]
    assert all(stage.evaluation.splits == "validation" and not stage.fractions for stage in frontiers)
    trains = [stage for stage in stages.values() if isinstance(stage, Train)]
    assert {train.training.steps for train in trains} == {60}
    seeds = {(train.task.name, train.seed) for train in trains}
    assert {task for task, seed in seeds if seed == 9} == {"gsm8k", "scienceqa"}, "the others only for the levels"


def test_the_page_names_every_trial_and_its_records(configured: Configured) -> None:
    config = configured(*GRID)
    found = Answers(world).drive(config)
    config.pipeline.conclude(config, found)
    folder = config.places.results
    page = (folder / "selection.md").read_text()
    raw = json.loads((folder / "selection.json").read_text())
    assert raw["version"] == 1
    for trial in raw["trials"]:
        for run in (trial["first"], *trial["runs"]):
            assert all(run[kind] in page for kind in ("train", "frontier"))
            assert {run["train"], run["frontier"]} <= found.keys()
    assert not re.search(r"\bnan\b|None", page)
    before = (folder / "selection.json").read_bytes()
    config.pipeline.conclude(config, found)
    assert (folder / "selection.json").read_bytes() == before


def test_a_reference_that_forgets_nothing_is_found_before_anything_else_is_made(configured: Configured) -> None:
    answers = Answers(lambda train: (1.0, -0.1, 0.0))
    with pytest.raises(UserError, match="has forgotten nothing"):
        answers.drive(configured(*GRID))
    assert len(answers.asked) == 1


def test_without_a_level_there_is_no_selection(configured: Configured) -> None:
    def nobody_learns(train: Train) -> tuple[float, float, float]:
        return (1.0 if train.method.fields()["r"] == 16 else 0.1), 0.3, 0.0

    with pytest.raises(UserError, match="No candidate of lora ever reaches the level"):
        Answers(nobody_learns).drive(configured(*GRID, "pipeline.against=['method=lora','method.r=16']"))


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["pipeline.methods.proj.stages=[['method.k=8'],['method.r=2']]"], "tries values of method.r and its start"),
        (["pipeline.methods.proj.stages=[['method.gamma=8']]"], "method.gamma"),
        (["pipeline.task=none"], "none is no benchmark"),
    ],
)
def test_a_grid_that_could_not_be_finished_is_refused_at_once(
    configured: Configured, words: list[str], told: str
) -> None:
    answers = Answers(world)
    with pytest.raises(UserError, match=told):
        answers.drive(configured(*GRID, *words))
    assert answers.asked == []


def test_the_first_three_methods_try_as_much(monkeypatch: pytest.MonkeyPatch) -> None:
    grids = compose(["pipeline=select"]).pipeline.methods  # type: ignore[attr-defined]
    counts = {name: sum(map(len, grid.stages)) for name, grid in grids.items() if grid.finalists}
    assert set(counts.values()) == {12}


def test_every_word_of_the_grid_composes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HIPLORA_CACHE", str(tmp_path))
    config = compose(["pipeline=select"])
    from hiplora.pipelines.trials import Runs

    config.pipeline._check(Runs(config.pipeline, config))  # type: ignore[attr-defined]
