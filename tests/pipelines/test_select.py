"""Selection with scripted records: which runs it asks for, whom it chooses, what it writes."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from hiplora import selection
from hiplora.compose import compose
from hiplora.errors import UserError
from hiplora.pipelines.base import Config
from hiplora.pipelines.frontier import level_of, no_level
from hiplora.stages.base import Stage
from hiplora.stages.frontier import Frontier
from hiplora.stages.results import Frontier as Points
from hiplora.stages.results import Point, Result
from hiplora.stages.train import Train
from tests.pipelines.scripted import BARE, Answers, small_grid
from tests.tiny import SMALL

Configured = Callable[..., Config]
LORA = "pipeline.against=['method=lora','training.lr=5e-4']"
RATES = "['training.lr=2.5e-4','training.lr=5e-4','training.lr=1e-3']"
START = "['method=lora','method.r=4']", "['method=proj','method.k=8']"
GRID = [
    *small_grid("lora", "proj", lora=f"[{RATES},['method.r=2']]", proj=f"[{RATES},['method.k=4','method.k=16']]"),
    LORA,
    "pipeline.final_seeds=[8,9]",
    *(f"pipeline.methods.{name}.start={words}" for name, words in zip(("lora", "proj"), START, strict=True)),
    "pipeline.methods.lora.finalists=2",
    "pipeline.methods.proj.finalists=2",
    "pipeline.methods.proj.gated=true",
]


@pytest.fixture
def small() -> list[str]:
    """The settings of a small run without those that a selection sets itself."""
    return [word for word in SMALL if not word.startswith(("method.", "training.steps"))]


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
    # Harm goes with c², linear between the scales that are measured: .6 and .75.
    assert fast.objective == pytest.approx((0.6**2 + (0.75**2 - 0.6**2) / 6) / 0.75**2)
    assert [len(t.runs) for t in tried["lora"]] == [0, 4, 4, 0]
    assert [bool(t.runs) for t in tried["proj"]] == [False, False, False, True, True], "the gated one is among them"
    assert chosen.winners["lora"] == {"method.r": 4, "training.lr": 1e-3}, "what all trials share was not chosen"
    assert (chosen.winners["proj"] or {})["method.k"] == 4
    assert (chosen.gated["proj"] or {})["method.k"] == 16
    assert chosen.levels == {task: pytest.approx(3 - 0.9 * 1.2) for task in ("gsm8k", "scienceqa", "mmlu", "code")}
    assert "To write into conf/method/proj.yaml:\n  k: 4" in said
    for name, k in (("proj", 4), ("proj_gated", 16)):
        block = said.split(f"conf/selected/mini/{name}.yaml:\n")[1].split("To write")[0]
        assert yaml.safe_load(block) == {"training": {"lr": 0.001}}
        assert f"conf/method/{name}.yaml:\n  k: {k}\n" in said


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


def test_a_selection_is_whole_where_its_page_cannot_be_written(tmp_path: Path) -> None:
    chosen = selection.Selection(
        backbone="b", identity="i", level_scale=0.5, level_gain=0.9, gate=0.01, objective=(), winners={}, gated={},
        levels={}, levels_from={}, trials=[], reference=selection.Reference(words=(), levels={}, runs=()),
    )  # fmt: skip
    (tmp_path / "selection.md").mkdir()
    with pytest.raises(UserError, match=r"selection\.md: Is a directory"):
        selection.write(tmp_path, chosen, "page")
    assert selection.read(tmp_path) == chosen


def test_another_selection_is_replaced_only_where_that_is_asked_for(configured: Configured) -> None:
    config = configured(*GRID)
    found = Answers(world).drive(config)
    config.pipeline.conclude(config, found)
    kept = selection.path(config.places.results).read_bytes()
    words = [*GRID, "pipeline.level_scale=0.6"]
    other = configured(*words)
    found |= Answers(world).drive(other)
    with pytest.raises(UserError, match=r"holds another selection.*force=true"):
        other.pipeline.conclude(other, found)
    assert selection.path(config.places.results).read_bytes() == kept
    forced = configured(*words, "force=true")
    forced.pipeline.conclude(forced, found)
    chosen = selection.read(config.places.results)
    assert chosen is not None
    assert chosen.level_scale == 0.6


def batches(config: Config, answers: Answers) -> list[list[Stage]]:
    """What a pipeline asks for, step by step; its last step is not answered."""
    steps: Any = config.stages()
    asked = [[each.stage for each in next(steps)]]
    while any(isinstance(stage, Frontier) for stage in asked[-1]):
        asked.append([each.stage for each in steps.send([answers.record(stage) for stage in asked[-1]])])
    return asked


def test_an_adapter_is_measured_where_it_reaches_the_level(configured: Configured) -> None:
    def learns_ever_less(point: Point) -> Point:
        (task,) = point.learning
        return point.model_copy(update={"learning": {task: {"nll": BARE - 1.6 * (1 - math.exp(-2 * point.scale))}}})

    class Saturating(Answers):
        def result(self, stage: Stage) -> Result:
            found = super().result(stage)
            if isinstance(found, Points) and found.points[0].scale:
                return Points(points=[learns_ever_less(point) for point in found.points], seconds=1)
            return found

    config, answers = configured(*GRID), Saturating(world)
    config.pipeline.conclude(config, answers.drive(config))
    chosen = selection.read(config.places.results)
    assert chosen is not None
    truth = -math.log(1 - (BARE - chosen.levels["gsm8k"]) / 1.6) / 2

    frontier = configured("pipeline=frontier", "method=lora", "task=gsm8k")
    first, (point,), (score,) = batches(frontier, answers)
    assert [stage.kind for stage in first] == ["train", "frontier", "frontier"]
    assert point.fractions == ()
    assert point.scales == (pytest.approx(truth, rel=0.02),)
    assert score.of.scale == pytest.approx(truth, rel=1e-3), "the measured point puts it right"
    merge = configured("pipeline=matched_merge", "method=lora")
    assert [stage.kind for stage in batches(merge, answers)[1]] == ["frontier"] * 4
    assert batches(merge, answers)[-1][-1].of.scales[2] == score.of.scale
    merge = configured("pipeline=matched_merge", "method=proj", "training.lr=1e-3", "pipeline.rescaled=true")
    asked, merged = batches(merge, answers), batches(merge, answers)[-1][-1]
    assert {stage.method.name for stage in asked[2] if stage.kind == "train"} == {"lora"}, "whose norms they get"
    assert {train.method.name for train in merged.of.adapters} == {"proj"}
    assert merged.of.norms[2] == pytest.approx(10 * score.of.scale)


def test_an_adapter_restored_for_its_point_at_the_level_is_measured_anew(configured: Configured) -> None:
    """Its record is there, its weights are not; trained again on another machine it is another adapter."""
    config, answers = configured(*GRID), Answers(world)
    config.pipeline.conclude(config, answers.drive(config))
    steps: Any = configured("pipeline=frontier", "method=lora", "task=gsm8k").stages()

    def of(digest: str, asked: Any) -> list[Any]:
        made = [answers.record(wanted.stage) for wanted in asked]
        return [each.model_copy(update={"needs": {"train": digest}}) for each in made]

    first = next(steps)
    point = steps.send(of("recorded", first))
    again = steps.send(of("restored", point))
    assert [each.stage.id for each in again] == [each.stage.id for each in first]
    point = steps.send(of("restored", again))
    (score,) = steps.send(of("restored", point))
    assert score.stage.kind == "score"


def test_a_selection_of_a_list_is_the_same_when_read_again(configured: Configured) -> None:
    """Settings are compared with those of the file, and written as YAML."""
    grid = [word for word in GRID if "lora.stages" not in word and not word.startswith("pipeline.methods.lora.start")]
    start = "pipeline.methods.lora.start=['method=lora','method.r=4','model.target_modules=[q_proj,v_proj]']"
    stages = f"pipeline.methods.lora.stages=[{RATES},['model.target_modules=[q_proj]']]"
    config = configured(*grid, stages, start)
    found = Answers(world).drive(config)
    said = config.pipeline.conclude(config, found)
    assert config.pipeline.conclude(config, found) == said


def test_a_task_that_nobody_has_to_learn_has_no_level(configured: Configured) -> None:
    """As where training makes the own NLL worse; what follows treats it as any task without a level."""

    def code_gets_worse(train: Train) -> tuple[float, float, float]:
        gain, harm, share = world(train)
        return (-gain if train.task.name == "code" else gain), harm, share

    config, answers = configured(*GRID), Answers(code_gets_worse)
    config.pipeline.conclude(config, answers.drive(config))
    chosen = selection.read(config.places.results)
    assert chosen is not None
    assert chosen.levels.keys() == chosen.levels_from.keys() == {"gsm8k", "scienceqa", "mmlu"}
    page = (config.places.results / "selection.md").read_text()
    assert "code has no level: 3.0000 nats would be its level, which is not below the backbone's own 3.0000" in page

    frontier = configured("pipeline=frontier", "method=lora", "task=code")
    found = answers.drive(frontier)
    assert "code has no level in" in (frontier.pipeline.conclude(frontier, found) or "")
    merge = configured("pipeline=matched_merge", "method=lora")
    merged: Any = batches(merge, answers)[-1][-1]
    assert [train.task.name for train in merged.of.adapters] == ["mmlu", "scienceqa", "gsm8k"]
    assert [task.name for task in merged.benchmarks] == ["mmlu", "scienceqa", "gsm8k"]
    few = configured("pipeline=matched_merge", "method=lora", "pipeline.tasks=[gsm8k,code]")
    with pytest.raises(UserError, match="code has no level in"):
        next(few.stages())  # type: ignore[arg-type]


def test_levels_hold_for_the_backbone_on_which_they_were_fixed(configured: Configured) -> None:
    config, answers = configured(*GRID), Answers(world)
    config.pipeline.conclude(config, answers.drive(config))
    same, other = configured("pipeline=frontier"), configured("pipeline=frontier", "model.dtype=bfloat16")
    assert level_of(same) == pytest.approx(3 - 0.9 * 1.2)
    assert level_of(other) is None
    assert "is of another backbone, tiny (float32)" in no_level(other)


def test_levels_hold_for_what_is_measured_as_they_were(configured: Configured) -> None:
    config, answers = configured(*GRID), Answers(world)
    config.pipeline.conclude(config, answers.drive(config))
    for word, named in (
        ("evaluation.scoring=letter", "evaluation.scoring, task.template or task.target"),
        ("task.target=solution", "evaluation.scoring, task.template or task.target"),
        ("pipeline.own_items=3", "pipeline.own_items or evaluation.limit"),
        ("evaluation.limit=3", "pipeline.own_items or evaluation.limit"),
    ):
        other = configured("pipeline=frontier", "task=gsm8k", word)
        assert level_of(other) is None
        assert no_level(other).endswith(
            f"has one, but it was measured with another setting of {named}. Change that, or choose another results_dir."
        )
    same = configured(
        "pipeline=frontier", "task=gsm8k", "evaluation.batch_tokens=64", "evaluation.gsm8k_max_new_tokens=3"
    )
    assert level_of(same) is not None
    records = config.places.tracked / "frontier"
    for path in records.glob("lora-gsm8k-*.json"):
        path.unlink()
    assert level_of(same) is None
    assert f"from which it follows, is not in {records}." in no_level(same)


def test_at_all_of_its_update_an_adapter_is_scored_as_it_is(configured: Configured) -> None:
    """One id for one score: not the adapter scaled by 1, nor a merge with scales of 1."""

    def slowly(train: Train) -> tuple[float, float, float]:
        return (1.0 if train.seed in (7, 8, 9) else 0.75), 0.4, 0.0

    only = "pipeline.methods.lora.stages=[['training.lr=5e-4']]"
    config, answers = configured(*GRID, only), Answers(slowly)
    config.pipeline.conclude(config, answers.drive(config))
    steps: Any = configured("pipeline=matched_merge", "method=lora", "training.lr=5e-4").stages()
    *_, alone, merged = steps.send([answers.record(each.stage) for each in next(steps)])
    assert alone.stage.of.kind == "adapter"
    assert merged.stage.of.scales is None


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
        (
            ["pipeline.methods.proj.stages=[['method.k=8'],['method.r=2']]"],
            "values of method.r, which its start does not set",
        ),
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


def test_the_first_three_methods_try_as_much() -> None:
    grids = compose(["pipeline=select"]).pipeline.methods  # type: ignore[attr-defined]
    first = list(grids.values())[:3]
    assert [sum(map(len, grid.stages)) for grid in first] == [12] * 3
    assert {grid.finalists for grid in first} == {2}


def test_every_word_of_the_grid_composes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HIPLORA_CACHE", str(tmp_path))
    config = compose(["pipeline=select"])
    from hiplora.pipelines.trials import Runs

    config.pipeline._check(Runs(config.pipeline, config))  # type: ignore[attr-defined]
