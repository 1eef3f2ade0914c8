"""Experiments, grids, multiruns and overrides."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import pytest
from hiplora.report.commands import sweeps
from hiplora.report.grid import compose_all
from hiplora.report.request import request, with_settings

from hiplora.errors import UserError
from hiplora.report import experiment as experiments


def expand(words: list[str]) -> list[tuple[str, ...]]:
    """What Hydra's basic sweeper makes of one multirun."""
    lists = []
    for word in words:
        key, _, values = word.partition("=")
        lists.append([f"{key}={value}" for value in ([values] if values.startswith("[") else values.split(","))])
    return [tuple(choice) for choice in itertools.product(*lists)]


@pytest.mark.parametrize("name", experiments.names())
@pytest.mark.parametrize("keep", [lambda i: True, lambda i: i % 3 == 0, lambda i: i in (1, 5, 6, 7)])
def test_sweeps_make_exactly_the_missing_runs(name, keep):
    wanted = [run for i, run in enumerate(experiments.load(name).wanted()) if keep(i)]
    made = [combination for words in sweeps(wanted) for combination in expand(words)]
    assert sorted(made) == sorted(run.overrides for run in wanted)


def test_a_full_table_is_one_multirun():
    assert len(sweeps(experiments.load("table1").wanted())) == 1


@dataclass(frozen=True)
class Config:
    method: str
    task: str
    size: int = 0


def toy_compose(overrides):
    values = dict(word.split("=") for word in overrides)
    if values["method"] == "broken":
        raise UserError("no such method")
    # Both the method and the task of this toy may set the size: such runs cannot be put together from parts.
    size = {"big": 2}.get(values["method"], 0) + {"long": 1}.get(values["task"], 0)
    return Config(method=values["method"], task=values["task"], size=size)


def test_a_grid_put_together_equals_a_grid_composed_run_by_run():
    axes = {axis: {v: (f"{axis}={v}",) for v in values} for axis, values in
            {"method": ["broken", "small", "big"], "task": ["short", "long", "other"]}.items()}  # fmt: skip
    runs = list(experiments.Group(name="g", pipeline="single", overrides=(), axes=axes).wanted())
    calls = []
    found = compose_all(runs, lambda overrides: calls.append(overrides) or toy_compose(overrides))
    for run, config in zip(runs, found, strict=True):
        if run.point["method"] == "broken":
            assert isinstance(config, UserError)
        else:
            assert config == toy_compose(run.overrides)
    assert len(calls) < len(runs)


def test_overrides_are_told_apart():
    experiment = experiments.load("table1")
    wish = request(experiment, ["scale=mini", "seed=42,100", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2"])
    assert wish.settings == ("scale=mini",)
    assert wish.hydra == ("hydra/launcher=joblib", "hydra.launcher.n_jobs=2")
    assert [wish.wants(run) for run in experiment.wanted()[:3]] == [True, True, False]


@pytest.mark.parametrize(
    ("word", "sentence"),
    [
        ("seed=7", "seed=7 is not part of table1; choose among 42, 100, 2024"),
        ("mini", "is no override"),
        ("force=true", "hiplora.run"),
    ],
)
def test_wrong_overrides_are_refused_in_words(word, sentence):
    with pytest.raises(UserError, match=sentence):
        request(experiments.load("table1"), [word])


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
    axes = {"method": {"lora": ("method=lora",), "hip": ("method=hip",), "free": ("method=hip", "method.stability=0")}}
    runs = list(experiments.Group(name="g", pipeline="single", overrides=(), axes=axes).wanted())

    def compose(overrides):
        return WithMethod(Lora(1) if "method=lora" in overrides else Hip(0.1))

    given = with_settings(runs, ["method.stability=5", "scale=mini"], compose)
    assert [run.fixed for run in given] == [("scale=mini",), ("scale=mini", "method.stability=5"), ("scale=mini",)]
    with pytest.raises(UserError, match=r"method\.rank=3 applies to no row"):
        with_settings(runs, ["method.rank=3"], compose)


def test_unknown_and_broken_experiments(tmp_path):
    with pytest.raises(UserError, match=r"choose one of .*table1"):
        experiments.load("table99")
    (tmp_path / "bad.yaml").write_text("title: no groups\n")
    with pytest.raises(UserError, match="is not an experiment"):
        experiments.load("bad", tmp_path)
