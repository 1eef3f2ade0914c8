"""Experiments, multiruns, overrides, and compositions that are kept."""

from __future__ import annotations

import itertools
import json
import shutil
from dataclasses import dataclass

import pytest

from hiplora import compose as composition
from hiplora import conf_dir
from hiplora.compose import compose, compose_cached
from hiplora.errors import UserError
from hiplora.report.ahead import compose_ahead
from hiplora.report.experiment import load, product, request, sweeps, with_settings
from hiplora.report.tables import TABLES


def expand(words: list[str]) -> list[tuple[str, ...]]:
    """What Hydra's basic sweeper makes of one multirun."""
    lists = []
    for word in words:
        key, _, values = word.partition("=")
        lists.append([f"{key}={value}" for value in ([values] if values.startswith("[") else values.split(","))])
    return [tuple(choice) for choice in itertools.product(*lists)]


@pytest.mark.parametrize("name", TABLES)
@pytest.mark.parametrize("keep", [lambda i: True, lambda i: i % 3 == 0, lambda i: i in (1, 5, 6, 7)])
def test_sweeps_make_exactly_the_missing_runs(name, keep):
    runs = [run for i, run in enumerate(load(name).runs) if keep(i)]
    made = [combination for words in sweeps(runs) for combination in expand(words)]
    assert sorted(made) == sorted(run.overrides for run in runs)


def test_a_full_table_is_one_multirun():
    assert len(sweeps(load("table1").runs)) == 1


def test_a_group_leaves_out_the_runs_that_match_a_whole_entry_of_without():
    axes = {"method": ["lora", "hip"], "seed": {42: "seed.value=42", 1: "seed.value=1"}}
    group = {"pipeline": "single", "axes": axes, "without": [{"method": ["hip"], "seed": [1]}]}
    kept = [(run.point["method"], run.point["seed"]) for run in product("g", group)]
    assert kept == [("lora", "42"), ("lora", "1"), ("hip", "42")]
    with pytest.raises(KeyError, match="without: sede"):
        product("g", {**group, "without": [{"sede": [1]}]})


def test_overrides_are_told_apart():
    experiment = load("table1")
    asked = request(experiment, ["scale=mini", "seed=42,100", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2"])
    assert asked.settings == ("scale=mini",)
    assert asked.hydra == ("hydra/launcher=joblib", "hydra.launcher.n_jobs=2")
    assert [asked.includes(run) for run in experiment.runs[:3]] == [True, True, False]


@pytest.mark.parametrize(
    ("word", "sentence"),
    [
        ("seed=7", "seed=7 is not part of table1; choose among 42, 100, 2024"),
        ("mini", "is not an override"),
        ("force=true", "hiplora.run"),
    ],
)
def test_wrong_overrides_are_refused_in_words(word, sentence):
    with pytest.raises(UserError, match=sentence):
        request(load("table1"), [word])


@dataclass(frozen=True)
class WithMethod:
    method: object


@dataclass(frozen=True)
class Hip:
    stability: float


@dataclass(frozen=True)
class Lora:
    r: int


def test_an_option_of_a_method_goes_to_the_rows_that_have_it_and_do_not_fix_it():
    axes = {"method": {"lora": "method=lora", "hip": "method=hip", "free": "method=hip method.stability=0"}}
    runs = product("g", {"pipeline": "single", "axes": axes})

    def toy(overrides):
        return WithMethod(Lora(1) if "method=lora" in overrides else Hip(0.1))

    given = with_settings(runs, ["method.stability=5", "scale=mini"], toy)
    assert [run.fixed for run in given] == [("scale=mini",), ("scale=mini", "method.stability=5"), ("scale=mini",)]
    with pytest.raises(UserError, match=r"method\.rank=3 applies to no row"):
        with_settings(runs, ["method.rank=3"], toy)


def test_unknown_and_broken_experiments(tmp_path):
    with pytest.raises(UserError, match=r"choose one of .*table1"):
        load("table99")
    (tmp_path / "bad.yaml").write_text("title: no groups\n")
    with pytest.raises(UserError, match="is not an experiment"):
        load("bad", tmp_path)


@pytest.fixture
def kept(tmp_path, monkeypatch):
    """The folder that compositions are kept in."""
    monkeypatch.setenv("HIPLORA_CACHE", str(tmp_path))
    return tmp_path / "compositions"


def refused(*arguments, **options):
    raise AssertionError("composed again")


@pytest.mark.parametrize("name", ["table11", "table14"])
def test_a_row_with_its_seed_set_is_what_hydra_composes(name):
    for runs in itertools.groupby(load(name).runs, key=lambda run: run.group):
        last = [*runs[1]][-1]
        assert last.point["seed"] == "2024"
        assert compose_cached(last.overrides) == compose(last.overrides)


def test_seeds_share_a_composition(kept, monkeypatch):
    assert compose_cached(["method=lora", "seed=42"]).seed == 42
    assert compose_cached(["method=lora"]) == compose(["method=lora"])
    with monkeypatch.context() as patch:
        patch.setattr(composition, "_hydra", refused)
        assert compose_cached(["method=lora", "seed=2024"]).seed == 2024
        assert compose_cached(["method=lora", "seed=custom", "seed.value=7"]).seed == 7
    assert compose_cached(["method=lora", "seed=custom", "seed.value=7"]) == compose(
        ["method=lora", "seed=custom", "seed.value=7"]
    )
    assert len([*kept.iterdir()]) == 1
    with pytest.raises(UserError, match="seed=custom seed"):
        compose_cached(["seed=8"])
    with pytest.raises(UserError, match="lrr"):
        compose_cached(["training.lrr=8"])
    assert len([*kept.iterdir()]) == 1, "what is refused is not kept"


def test_rows_composed_ahead_are_those_composed_one_by_one(kept, monkeypatch):
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    rows = [[f"training.steps={steps}", f"seed={seed}"] for steps in range(1, 7) for seed in (42, 100)]
    compose_ahead(rows[:10])
    assert not kept.exists(), "too few to start processes for"
    compose_ahead([*rows, ["training.lrr=8"], ["seed=8"]])
    assert len([*kept.iterdir()]) == 6
    with monkeypatch.context() as patch:
        patch.setattr(composition, "_hydra", refused)
        ahead = [compose_cached(row) for row in rows]
        compose_ahead(rows)  # nothing is left to do
    assert ahead == [composition.compose(row) for row in rows]
    with pytest.raises(UserError, match="lrr"):
        compose_cached(["training.lrr=8"])


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"digest": "0"}', "changed"])
def test_a_damaged_composition_is_composed_anew(kept, damage):
    whole = compose_cached(["training.steps=7"])
    (path,) = kept.iterdir()
    text = path.read_text()
    if damage == "changed":
        raw = json.loads(text)
        raw["composed"]["training"]["steps"] = 8
        damage = json.dumps(raw)
    path.write_text(damage)
    assert compose_cached(["training.steps=7"]) == whole
    assert json.loads(path.read_text()) == json.loads(text)


def test_another_conf_is_composed_anew(kept, tmp_path, monkeypatch):
    before = compose_cached([])
    conf = tmp_path / "conf"
    shutil.copytree(conf_dir.CONF_DIR, conf)
    monkeypatch.setattr(conf_dir, "CONF_DIR", conf)
    assert compose_cached([]) == before
    assert len([*kept.iterdir()]) == 1, "where conf/ lies does not matter"
    changed = tmp_path / "changed"
    shutil.copytree(conf, changed)
    scale = changed / "scale" / "mini.yaml"
    scale.write_text(scale.read_text().replace("steps: 60", "steps: 61"))
    monkeypatch.setattr(conf_dir, "CONF_DIR", changed)
    assert compose_cached([]).training.steps == 61
    assert len([*kept.iterdir()]) == 2
