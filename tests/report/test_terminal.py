"""What a run prints of a tracked record that differs from its own."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from hiplora.pipelines.base import scores, training
from hiplora.report.terminal import describe
from hiplora.stages.make import Outcome
from hiplora.stages.sources import Backbone, Merged
from tests.report.simulated import Simulation

ENGINE = SimpleNamespace(reused=[])


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
