"""What a run is scored on, with a benchmark beside the paper's four."""

from __future__ import annotations

import sys
from dataclasses import replace
from types import SimpleNamespace

import pytest

from hiplora.compose import compose
from hiplora.config import RunConfig
from hiplora.errors import UserError
from hiplora.evaluation import engine, text
from hiplora.evaluation.retention import retention
from hiplora.pipelines import scoring
from hiplora.scheduler import record_id
from hiplora.tasks import ORDER, TASKS
from hiplora.tasks.scienceqa import ScienceQA


class Toy(ScienceQA):
    """Another benchmark, on the data of one that is there."""

    name = "toy"
    scores = ("acc",)


def on_toy(config: RunConfig) -> RunConfig:
    return config.but(task=replace(config.task, name="toy"))


def test_a_further_benchmark_is_scored_by_the_runs_that_train_on_it_and_changes_no_other(monkeypatch):
    config = compose(["method=lora", "task=scienceqa", "evaluation.code_execution=off"])
    runs = [config, config.but(pipeline="backbone"), config.but(pipeline="merge")]
    before = [record_id(run) for run in runs]
    monkeypatch.setitem(sys.modules, "toy_task", SimpleNamespace(Toy=Toy))
    monkeypatch.setitem(TASKS, "toy", "toy_task:Toy")
    assert [record_id(run) for run in runs] == before
    # A merge draws from the four whatever the group task says; the others train on the new one, and are scored on it.
    assert [record_id(on_toy(run)) == own for run, own in zip(runs, before, strict=True)] == [False, False, True]

    asked: list[str] = []
    monkeypatch.setattr(engine, "evaluate", lambda *_, tasks, **__: asked.extend(task.name for task in tasks) or {})
    monkeypatch.setattr(text, "text_cross_entropy", lambda *_, **__: {})
    scoring.score(None, None, on_toy(config), subject="a model", remedy="")
    assert asked == [*ORDER, "toy"]

    base = {name: {"acc": 0.5, "pass@1": 0.5, "nll": 1.0} for name in (*ORDER, "toy", "text")}
    adapted = base | {"toy": {"acc": 1.0, "nll": 0.1}, "mmlu": {"acc": 0.1, "nll": 1.4}}
    forgotten = retention(base, adapted, trained_on="toy")
    assert forgotten["retain_pp"] == pytest.approx(10)
    assert forgotten["retain_nll"] == pytest.approx(0.1)


@pytest.mark.parametrize("where", ["text", "mmlu"])
def test_outputs_that_are_not_finite_are_named(monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    found = {name: float("nan") if name == where else 1.0 for name in ("text", "mmlu")}
    scores = {"mmlu": engine.TaskScore({"acc": 0.5, "nll": found["mmlu"]}, 1)}
    monkeypatch.setattr(text, "text_cross_entropy", lambda *_, **__: {"nll": found["text"], "tokens": 1})
    monkeypatch.setattr(engine, "evaluate", lambda *_, **__: scores)
    with pytest.raises(
        UserError, match=f"The nll of {where} is nan: the outputs of this model are not finite; do that"
    ):
        scoring.score(None, None, compose([]), subject="this model", remedy="do that", tasks=["mmlu"])
