"""What the page says of a run's settings: everything that differs from conf/, under the pipeline that made it."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest

from hiplora.compose import compose_cached
from hiplora.pipelines.base import known, scores, training
from hiplora.report.page.groups import grouped
from hiplora.report.page.settings import Defaults, Settings
from hiplora.report.page.views import Views
from hiplora.report.runs.prompts import Prompts
from hiplora.report.runs.shelf import Shelf
from hiplora.stages.base import Stage
from tests.report.simulated import Simulation

PIPELINES = ("single", "frontier", "probe", "drift", "edit", "efficiency", "merge", "continual", "curve", "backbone")


def settings(stage: Stage, *of_all: str) -> Settings:
    """What is said of a record of this stage, in a folder whose runs have some overrides in common."""
    record: Any = SimpleNamespace(kind=stage.kind, asked=stage.described())
    return Defaults(of_all).of(record)


@pytest.mark.parametrize(
    "words",
    [
        ("training.lr=0.003",),
        ("method=lora", "method.rslora=true"),
        ("method=proj", "method.basis=random"),
        ("model.chat_template=true",),
        ("evaluation.take=drawn",),
    ],
)
def test_a_setting_unlike_conf_is_named_also_where_a_description_leaves_out_its_constant(words):
    field, _, value = words[-1].partition("=")
    short = field.rpartition(".")[2]
    changed, plain = (compose_cached(each) for each in (words, words[:-1]))
    of_changed, of_plain = (scores(config, training(config)) for config in (changed, plain))
    assert settings(of_plain).words == ""
    assert settings(of_changed).words == f"{short}={value}"
    (name,) = (name for name, _, _ in settings(of_plain, words[-1]).changed)
    assert name == field
    if field.startswith("evaluation."):
        assert settings(training(plain), words[-1]).words == "", "a training knows of no evaluation"


@pytest.mark.parametrize("pipeline", PIPELINES)
def test_what_a_pipeline_makes_is_compared_with_conf_for_that_pipeline(pipeline):
    stages, _ = known(compose_cached([f"pipeline={pipeline}"]), lambda stage: None)
    assert {(stage.kind, settings(stage).words, settings(stage).reason) for stage in stages} == {
        (stage.kind, "", "") for stage in stages
    }


def test_a_smoke_test_is_marked_and_gives_way_to_a_full_score(tmp_path):
    simulation = Simulation(tmp_path / "results/mini")
    full = scores(simulation.config, training(simulation.config))
    smoke = full.but(evaluation=full.evaluation.but(limit=3))
    for stage, words in ((smoke, "limit=3"), (full, "")):
        made = simulation.record(stage)
        shelf = Shelf(simulation.folder)
        (run,) = grouped(shelf)
        assert run.best == made
        view = Views(shelf, Prompts(simulation.settings), Defaults(simulation.settings)).of(run)
        assert view.words == words
        assert [part.settings.words for part in view.parts] == ["", "limit=3", ""][: len(view.parts)]


def test_tasks_of_ones_own_differ_by_their_options_and_their_data(tmp_path):
    found = []
    for number in (1, 2):
        path = tmp_path / f"{number}.jsonl"
        rows = [{"q": f"What is {i} + {number}?", "a": str(i + number)} for i in range(40)]
        path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
        words = ["task=custom", f"task.file={path}", "task.columns.prompt=q", "task.columns.answer=a"]
        config = compose_cached([*words, "task.metric=contains"])
        found.append(settings(scores(config, training(config))))
    one, two = ({name: (ours, plain) for name, ours, plain in each.changed} for each in found)
    assert one["task.metric"] == ("contains", "exact_match")
    assert one["task.columns.prompt"] == ("q", "prompt")
    assert {name for name in one if one[name] != two[name]} == {"task.data"}
    assert found[0].words != found[1].words
