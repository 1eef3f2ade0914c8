"""What a run prints of a tracked record that differs from its own."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from hiplora.pipelines.base import scores, training
from hiplora.report.terminal import describe
from hiplora.stages.make import Outcome
from hiplora.stages.sources import Backbone, Merged
from tests.report.simulated import Simulation

ENGINE = SimpleNamespace(reused=[], force=False)


@pytest.mark.parametrize("last", ["adapter", "backbone", "line", "merged"])
def test_another_record_is_called_restored_and_shown_where_it_is(last, tmp_path):
    beside = last == "adapter"
    simulation = Simulation(tmp_path / "results/mini")
    config = simulation.config
    tasks = {task.name: task for task in config.benchmarks}
    first = training(config, task=tasks["gsm8k"])
    second = training(config, task=tasks["mmlu"], parent=first if last == "line" else None)
    base, *adapted = (scores(config, of) for of in (Backbone(model=config.model), first, second))
    stages = {
        "adapter": [base, adapted[0]],
        "backbone": [base],
        "line": [base, *adapted],
        "merged": [base, *adapted, scores(config, Merged(adapters=(first, second), operator=config.merge))],
    }[last]
    outcomes = [Outcome(stage, simulation.record(stage)) for stage in stages]
    assert "tracked" not in describe(outcomes, ENGINE)
    record = outcomes[-1].record
    outcomes[-1] = Outcome(stages[-1], record, record.model_copy(update={"digest": "another"}))
    text = describe(outcomes, ENGINE)
    assert ("restored here" in text) is beside
    assert ("recorded" in text.splitlines()[0].split()) is beside
    assert "the tracked record" in text.splitlines()[-1]


@pytest.mark.parametrize("many", ["line", "merged"])
def test_where_only_likelihoods_were_measured_the_nll_is_shown(many, tmp_path):
    simulation = Simulation(tmp_path / "results/mini")
    config = simulation.config
    tasks = {task.name: task for task in config.benchmarks}
    first = training(config, task=tasks["gsm8k"])
    second = training(config, task=tasks["mmlu"], parent=first if many == "line" else None)
    stages = [scores(config, of) for of in (Backbone(model=config.model), first, second)]
    if many == "merged":
        stages.append(scores(config, Merged(adapters=(first, second), operator=config.merge)))
    text = describe([Outcome(stage, without_scores(simulation.record(stage))) for stage in stages], ENGINE)
    shown = [line for line in text.splitlines()[:5] if not line.startswith("n ")][: len(stages)]
    assert ("gsm8k nll" if many == "line" else "NLL before") in shown[0]
    assert not any(cell == "-" for line in shown for cell in line.split())


def test_retain_says_what_it_lacks(tmp_path):
    simulation = Simulation(tmp_path / "results/mini")
    config = simulation.config
    first = training(config, task=next(task for task in config.benchmarks if task.name == "gsm8k"))
    stages = [scores(config, of) for of in (Backbone(model=config.model), first)]
    records = [without_scores(simulation.record(stage), "code") for stage in stages]
    text = describe([Outcome(stage, record) for stage, record in zip(stages, records, strict=True)], ENGINE)
    assert "Retain - pp (no score of code; evaluation.retain=" in text


def without_scores(record, *benchmarks: str):
    """The record of scores as if only likelihoods had been measured, of all benchmarks or of these."""
    found = {
        name: {
            metric: value if metric in ("nll", "n", "tokens") or (benchmarks and name not in benchmarks) else None
            for metric, value in scores.items()
        }
        for name, scores in record.result.benchmarks.items()
    }
    return record.model_copy(update={"result": record.result.model_copy(update={"benchmarks": found})})
