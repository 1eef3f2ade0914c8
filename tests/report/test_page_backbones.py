"""A score is compared with its own backbone and data, on the page and on the adapter's card."""

from __future__ import annotations

import copy
from pathlib import Path
from statistics import fmean
from types import SimpleNamespace

import pytest
from huggingface_hub import ModelCard

from hiplora import runs
from hiplora.compose import compose_cached
from hiplora.pipelines.base import put_on, scores, training
from hiplora.report.__main__ import main
from hiplora.report.cards import fill_cards
from hiplora.report.page.bare import Bare, plotted_with
from hiplora.report.page.facts import members
from hiplora.report.page.groups import grouped
from hiplora.report.page.settings import Defaults
from hiplora.report.page.views import Views
from hiplora.report.runs.prompts import Prompts
from hiplora.report.runs.shelf import Shelf
from hiplora.stages import record as files
from hiplora.stages.record import Records
from hiplora.stages.sources import Adapted, Backbone, Merged
from hiplora.tasks import primary
from tests.report.pages import Read
from tests.report.simulated import Simulation


@pytest.mark.usefixtures("elsewhere")
def test_a_score_is_compared_with_its_own_backbone_and_data(tmp_path, monkeypatch):
    (tmp_path / "results/mini").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    simulation, of = Simulation(Path("results/mini")), {}
    for name in ("one", "two", "alone"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(f'{{"model": "{name}"}}')
        model = ["model=folder", f"model.path={tmp_path / name}", f"model.name={name}"]
        config = compose_cached([*simulation.settings, *model, "task=gsm8k"])
        bare = scores(config, Backbone(model=config.model))
        base = None if name == "alone" else simulation.record(bare)
        of[name] = (base, simulation.record(scores(config, training(config))))
    assert main(["--only", "table1"]) == 0
    text = Path("outputs/report.html").read_text()
    read = Read(text)
    assert "Runs of 3 backbones: " in read.words
    assert "Backbone SmolLM2" not in text.split("</header>")[0]
    assert text.count("No score of the backbone on record") == 1
    titles = [title for title in ("gsm8k, scored on test, one", "gsm8k, scored on test, two") if title in text]
    assert len(titles) == 2  # two scatter plots, as learning is not comparable between backbones
    for name, (base, adapted) in of.items():
        (row,) = (r for r in read.rows if len(r) == 15 and r[0][1] == f"#r-{next(iter(adapted.needs))}-{adapted.where}")
        learned = ""
        if base is not None:
            learned = f"{base.result.benchmarks['gsm8k']['nll'] - adapted.result.benchmarks['gsm8k']['nll']:.3f}"
            assert row[2][0].strip() == name
        assert row[7][0].strip().replace("−", "-") == learned
    base, adapted = of["one"]
    bare = Bare([of["two"][0], base])
    assert bare.of(adapted) == base
    assert bare.of(base) is None
    for other in ("limit", "file", "option"):
        asked = copy.deepcopy(adapted.asked)
        if other == "limit":
            asked["evaluation"]["limit"] = 3
        elif other == "file":
            asked["reads"]["gsm8k/test"] = "0" * 64
        else:
            asked["benchmarks"][0]["scoring"] = "other"
        assert bare.of(adapted.model_copy(update={"asked": asked})) is None, other
    own = copy.deepcopy(adapted.asked)
    own["of"]["train"]["task"] = {"name": "custom", "version": 1}
    own["of"]["train"]["training"]["steps"] += 1
    settings = Defaults(simulation.settings).of(adapted.model_copy(update={"asked": own}))
    assert settings.words == f"steps={own['of']['train']['training']['steps']}"
    assert settings.reason == ""
    fewer = copy.deepcopy(adapted.asked)
    fewer["benchmarks"].pop()
    assert bare.of(adapted.model_copy(update={"asked": fewer})) == base


def test_numbers_that_are_not_comparable_are_in_plots_of_their_own(tmp_path):
    simulation = Simulation(tmp_path / "results/mini")
    config = simulation.config
    for name, same in (("gsm8k", False), ("mmlu", True)):
        record = simulation.record(scores(config, training(config)))
        for change in ("scoring", "own/data", "where"):
            asked = copy.deepcopy(record.asked)
            if change == "scoring":
                next(each for each in asked["benchmarks"] if each["name"] == name)[change] = "other"
            elif change == "own/data":  # as a data set on the Hub is called, unless it is another benchmark's file
                asked["reads"][f"{name}/other" if same else change] = "0" * 40
            where = "tpu-float64" if change == "where" else record.where
            other = record.model_copy(update={"asked": asked, "where": where})
            alike = plotted_with(other, "gsm8k") == plotted_with(record, "gsm8k")
            assert alike is (same and change != "where"), change


@pytest.mark.usefixtures("elsewhere")
def test_runs_of_two_devices_and_settings_are_told_apart_and_commands_find_them(tmp_path, monkeypatch):
    """Two plots have two titles, the list says where each run was made, and a command names both and the folder."""
    monkeypatch.chdir(tmp_path)
    simulation = Simulation(Path("other/results/mini"))
    config = simulation.config
    simulation.record(scores(config, Backbone(model=config.model)))
    adapted = simulation.record(scores(config, training(config)))
    words = ["--results", "other/results/mini", "--only", "table1", "training.steps=60"]
    assert main(words) == 0
    assert 'data-name="where"' not in Path("outputs/report.html").read_text()
    records = Path("other/results/mini/records")
    for record in list(simulation.made.values()):
        files.write(records / record.kind, record.model_copy(update={"where": "tpu-float64"}), [])
    short = scores(config.but(evaluation=config.evaluation.but(limit=3)), Backbone(model=config.model))
    for stage in (short, short.but(of=Adapted(train=training(config, seed=7)))):
        simulation.record(stage)
    assert main(words) == 0
    text = Path("outputs/report.html").read_text()
    for what in (f"{adapted.where}, no limit", f"{adapted.where}, limit=3", "tpu-float64, no limit"):
        panels = text.split('id="scatter"')[1]
        assert panels.count(f"gsm8k, scored on test, {what}</figcaption>") == 1
    read = Read(text)
    assert 'data-name="where"' in text
    assert f"ARGS='results_dir={tmp_path}/other/results training.steps=60'" in read.words
    shown = f"runs show {adapted.id}.{adapted.where} --predictions all --results other/results/mini training.steps=60"
    assert shown in read.words
    assert runs.main(shown.split()[1:]) == 0
    (records / "score" / str(adapted.samples)).write_bytes(b"damaged")
    assert main(words) == 0
    damaged = Path("outputs/report.html").read_text()
    assert f"holds the predictions of score {adapted.id}" in damaged
    assert [row[:-1] for row in Read(damaged).rows] == [row[:-1] for row in read.rows], "a number is gone"


def test_a_merge_is_compared_with_its_adapters_as_they_were_scaled_for_it(tmp_path):
    simulation = Simulation(tmp_path / "results/mini")
    config = simulation.config
    tasks = {task.name: task for task in config.benchmarks}
    adapters = tuple(training(config, task=tasks[name]) for name in ("gsm8k", "mmlu"))
    alone = {
        (train.id, c): simulation.record(scores(config, put_on(train, c))).id for train in adapters for c in (0.5, 1)
    }
    for sizes, wanted in (
        ({}, (1, 1)),
        ({"scales": (0.5, 0.5)}, (0.5, 0.5)),
        ({"scales": (1.0, 0.5)}, (1, 0.5)),
        ({"norms": (2.0, 2.0)}, ()),
    ):
        merged = simulation.record(scores(config, Merged(adapters=adapters, operator=config.merge, **sizes)))
        found = {record.id for record in members(Shelf(simulation.folder), merged)}
        assert found == {alone[train.id, c] for train, c in zip(adapters, wanted, strict=False)}, sizes


def test_a_merge_scored_by_likelihood_is_compared_with_scores_that_generated_text_too(tmp_path):
    """Each adapter was scored on its own benchmark alone; fields other than those of generation still have to agree."""
    simulation = Simulation(tmp_path / "results/mini")
    config = simulation.config
    tasks = {task.name: task for task in config.benchmarks if task.name in ("gsm8k", "code")}
    adapters = {name: training(config, task=task) for name, task in tasks.items()}
    base = simulation.record(scores(config, Backbone(model=config.model)))
    alone = {
        name: simulation.record(scores(config, put_on(train, 0.5)).but(benchmarks=(tasks[name],)))
        for name, train in adapters.items()
    }
    of = Merged(adapters=tuple(adapters.values()), operator=config.merge, scales=(0.5, 0.5))
    only = config.evaluation.but(likelihood_only=True)
    stage = scores(config, of).but(benchmarks=tuple(tasks.values()), evaluation=only)
    merged, shelf = simulation.record(stage), Shelf(simulation.folder)
    run = next(run for run in grouped(shelf) if run.head == merged)
    (part,) = Views(shelf, Prompts(simulation.settings), Defaults(simulation.settings)).of(run).parts
    assert not part.unmatched
    lines = {line.name: (line.before, line.alone, line.after) for line in part.lines}
    assert lines.keys() == {f"{name} nll" for name in merged.result.benchmarks}
    for name in tasks:
        measured = (record.result.benchmarks[name]["nll"] for record in (base, alone[name], merged))
        assert lines[f"{name} nll"] == tuple(f"{nll:.3f}" for nll in measured)
    assert lines["text nll"][1] == ""
    for field, value in {"limit": 3, "text_tokens": 64}.items():
        other = simulation.record(stage.but(evaluation=only.but(**{field: value})))
        assert (Bare([base]).of(other), members(Shelf(simulation.folder), other)) == (None, []), field
    for place in ("option", "file"):  # of word problems; of functions nothing has changed
        asked = copy.deepcopy(merged.asked)
        if place == "option":
            asked["benchmarks"][0]["scoring"] = "other"
        else:
            asked["reads"]["gsm8k/test"] = "0" * 64
        unlike = merged.model_copy(update={"asked": asked})
        assert (Bare([base]).of(unlike), members(shelf, unlike)) == (None, [alone["code"]]), place
    likelihoods = simulation.record(scores(config, Backbone(model=config.model)).but(evaluation=only))
    assert Bare([likelihoods]).of(merged) == likelihoods
    assert Bare([likelihoods]).of(alone["gsm8k"]) is None, "it has no score to compare"


@pytest.mark.parametrize("names", [("mmlu", "gsm8k"), ("mmlu", "scienceqa", "gsm8k", "code")], ids="+".join)
def test_an_adapter_of_several_tasks_forgets_what_it_was_not_trained_on(tmp_path, names):
    simulation, train = Simulation(tmp_path / "results/mini"), None
    config = simulation.config
    tasks = {task.name: task for task in config.benchmarks}
    for name in names:
        train = training(config, task=tasks[name], parent=train)
    before, after = (
        simulation.record(scores(config, of)).result.benchmarks for of in (Backbone(model=config.model), train)
    )
    shelf = Shelf(simulation.folder)
    run = next(run for run in grouped(shelf) if run.head.id == train.id)
    view = Views(shelf, Prompts(simulation.settings), Defaults(simulation.settings)).of(run)
    assert view.task == ",".join(names)
    assert view.facts.own == 100 * after[names[-1]][primary(names[-1])]
    left = [name for name in tasks if name not in names]
    falls = [100 * (before[name][primary(name)] - after[name][primary(name)]) for name in left]
    rises = [after[name]["nll"] - before[name]["nll"] for name in left]
    expected = (pytest.approx(fmean(falls)), pytest.approx(fmean(rises))) if left else (None, None)
    assert (view.facts.retain_pp, view.facts.retain_nll) == expected
    assert view.facts.retain_text == after["text"]["nll"] - before["text"]["nll"]


def test_a_full_score_fills_the_card_and_a_limited_one_leaves_it(elsewhere, tmp_path, capsys):
    simulation = Simulation(tmp_path / "results/mini")
    stage = scores(simulation.config, training(simulation.config))
    limited = stage.but(evaluation=stage.evaluation.but(limit=3))
    base = simulation.record(stage.but(of=Backbone(model=simulation.config.model)))
    store = SimpleNamespace(
        current=lambda key: simulation.made.get(key[0]),
        artefact=lambda record: tmp_path,
        samples=Shelf(simulation.folder).samples,
        tracked=Records(simulation.folder / "records"),
        local=None,
    )
    for of, there in ((limited, False), (stage, True)):
        fill_cards([SimpleNamespace(stage=of, record=simulation.record(of))], store)
        assert (tmp_path / "README.md").is_file() is there
    found = {(r.dataset_name, r.metric_type): r for r in ModelCard.load(tmp_path / "README.md").data.eval_results}
    after = simulation.record(stage).result.benchmarks
    assert {name for name, _ in found} == {f"{name} (data mini of hiplora)" for name in after}
    for (dataset, metric), result in found.items():
        name = dataset.partition(" ")[0]
        assert result.dataset_type == f"hiplora-mini-{name}", "not the data set of that name on the Hub"
        assert result.metric_value == pytest.approx(after[name][metric], abs=1e-6)
    assert f"| gsm8k | nll | {base.result.benchmarks['gsm8k']['nll']:.3f} |" in (tmp_path / "README.md").read_text()
    card, asked = tmp_path / "README.md", [SimpleNamespace(stage=stage, record=simulation.record(stage))]
    written = card.read_text()
    fill_cards(asked, store)
    assert card.read_text() == written
    assert capsys.readouterr().err == ""
    card.write_text(written.replace("# license: yours", "license: mit # ours"))
    fill_cards(asked, store)
    assert "license: mit # ours" in card.read_text(), "what somebody has written is kept"
    assert "was changed, or is of an older version, and stays as it is" in capsys.readouterr().err
