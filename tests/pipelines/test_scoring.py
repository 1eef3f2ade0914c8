"""What a run is scored on, with a benchmark beside the paper's four, and what is refused of a model's outputs."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import pytest

from hiplora.compose import build, compose, raw_composition
from hiplora.errors import UserError
from hiplora.evaluation import engine, text
from hiplora.evaluation.retention import retention
from hiplora.parts import Parts
from hiplora.pipelines.base import Config
from hiplora.stages.base import Job
from hiplora.stages.score import Score
from hiplora.tasks import ORDER, TASKS
from hiplora.tasks.scienceqa import ScienceQA

OFF = "evaluation.code_execution=off"


class Toy(ScienceQA):
    """Another benchmark, on the data of one that is there."""

    name = "toy"
    scores = ("acc",)


def ids(config: Config) -> list[str]:
    return [wanted.stage.id for wanted in config.stages()]  # type: ignore[union-attr]


def score_of(config: Config) -> Score:
    return config.stages()[-1].stage  # type: ignore[index, return-value]


def scored(stage: Score) -> Any:
    job: Any = SimpleNamespace(parts=Parts(None))
    return stage._scores(None, None, job)


def test_a_further_benchmark_is_scored_by_the_runs_that_train_on_it_and_changes_no_other(monkeypatch):
    words = ["method=lora", "task=scienceqa", OFF]
    runs = {name: raw_composition([*words, f"pipeline={name}"]) for name in ("single", "backbone", "merge")}
    before = {name: ids(build(raw)) for name, raw in runs.items()}
    monkeypatch.setitem(sys.modules, "toy_task", SimpleNamespace(Toy=Toy))
    monkeypatch.setitem(TASKS, "toy", "toy_task:Toy")
    assert {name: ids(build(raw)) for name, raw in runs.items()} == before
    # A merge draws from the four whatever the group task says; the others train on the new one, and are scored on it.
    on_toy = {name: build({**raw, "task": {**raw["task"], "name": "toy"}}) for name, raw in runs.items()}
    assert not set(ids(on_toy["single"])) & set(before["single"])
    assert not set(ids(on_toy["backbone"])) & set(before["backbone"])
    assert ids(on_toy["merge"])[-1] == before["merge"][-1]

    asked: list[str] = []
    monkeypatch.setattr(engine, "evaluate", lambda *_, tasks, **__: asked.extend(task.name for task in tasks) or {})
    monkeypatch.setattr(text, "text_cross_entropy", lambda *_, **__: {})
    scored(score_of(on_toy["single"]))
    assert asked == [*ORDER, "toy"]

    base = {name: {"acc": 0.5, "pass@1": 0.5, "nll": 1.0} for name in (*ORDER, "toy", "text")}
    adapted = base | {"toy": {"acc": 1.0, "nll": 0.1}, "mmlu": {"acc": 0.1, "nll": 1.4}}
    forgotten = retention(base, adapted, trained_on="toy")
    assert forgotten["retain_pp"] == pytest.approx(10)
    assert forgotten["retain_nll"] == pytest.approx(0.4 / 3)
    assert forgotten["retain_styled"] == 0
    of_two = retention(base, adapted, trained_on=("mmlu", "gsm8k"))  # a merge leaves out what each was trained on
    assert (of_two["retain_pp"], of_two["retain_nll"], of_two["retain_styled"]) == (0, 0, None)


@pytest.mark.parametrize("where", ["text", "mmlu"])
def test_outputs_that_are_not_finite_are_named(monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    found = {name: float("nan") if name == where else 1.0 for name in ("text", "mmlu")}
    scores = {"mmlu": engine.TaskScore({"acc": 0.5, "nll": found["mmlu"]}, 1)}
    monkeypatch.setattr(text, "text_cross_entropy", lambda *_, **__: {"nll": found["text"], "tokens": 1})
    monkeypatch.setattr(engine, "evaluate", lambda *_, **__: scores)
    with pytest.raises(UserError, match=f"The nll of {where} is nan: the outputs of the adapter .* are not finite; it"):
        scored(score_of(compose([OFF])))


def test_before_is_the_bare_backbone(configured, monkeypatch) -> None:
    """What Retain and every Before of the backbone are measured on has no adapter attached."""
    seen: dict[str, bool] = {}

    def scores(stage: Score, model: Any, tokenizer: Any, job: Job) -> Any:
        seen[stage.of.kind] = any("lora_" in name for name, _ in model.named_parameters()) or hasattr(
            model, "peft_type"
        )
        seen[f"{stage.of.kind} hooks"] = any(module._forward_hooks for module in model.modules())
        return {task.name: {"nll": 1.0} for task in stage.benchmarks} | {"text": {"nll": 1.0}}, []

    monkeypatch.setattr(Score, "_scores", scores)
    from tests.pipelines.conftest import Run

    Run(configured("method=lora"))
    Run(configured("method=lora", "pipeline=merge", "merging.sizes=[2]", "merging.instances=1"))
    Run(configured("pipeline=backbone", "force=true"))  # after adapters and merges were on the shared backbone
    assert seen == {
        "backbone": False,
        "backbone hooks": False,
        "adapter": True,
        "adapter hooks": False,
        "merged": False,
        "merged hooks": True,
    }
