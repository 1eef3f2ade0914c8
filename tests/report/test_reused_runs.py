"""Which figures ask for runs of their own: their grids against those whose runs they stand on, by the ids of stages."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import pytest

from hiplora.compose import compose
from hiplora.pipelines.trials import Run, Runs
from hiplora.report.experiment import load
from hiplora.report.find import identify

CHANGES = {
    "l4": (),
    "l3": ("method.stability=1e-3",),
    "l2": ("method.stability=1e-2",),
    "g0": ("method.gamma=0.0",),
    "g2": ("method.gamma=2.0",),
}


@cache
def ids(name: str, kind: str, group: str | None = None, **point: str) -> frozenset[str]:
    """Ids of the stages of one kind that an experiment asks for, its merges apart: these only use what others make."""
    experiment = load(name)
    runs = [run for run in experiment.runs if run.pipeline != "merge" and group in (None, run.group)]
    slots = identify(replace(experiment, runs=[run for run in runs if point.items() <= run.point.items()]), [])
    return frozenset(e.stage.id for slot in slots for e in slot.entries if e.stage is not None and e.stage.kind == kind)


@pytest.mark.parametrize(("name", "other", "kind"), [
    ("figure4", "figure3", "train"), ("figure5", "table11", "train"), ("figure6", "table3", "probe"),
])  # fmt: skip
def test_a_figure_asks_for_no_run_that_another_does_not(name, other, kind):
    assert ids(name, kind)
    assert ids(name, kind) <= ids(other, kind)


@pytest.mark.parametrize("setting", CHANGES)
def test_settings_of_figure_3_are_trials_of_selection(setting):
    """At the learning rate that conf/ has: its own where selection has written the winner's there."""
    config = compose(["pipeline=select"])
    select, rate = config.pipeline, compose(["method=hip"]).training.lr
    words = select.typed_words((*select.methods["hip"].start, f"training.lr={rate}", *CHANGES[setting]))
    train, base, frontier = Runs(select, config).ids(Run(words, select.task, select.seed))
    point = {"method": setting, "seed": str(select.seed)}
    assert ids("figure3", "train", "relative", **point) == {train}
    assert ids("figure3", "frontier", "relative", **point) == {base, frontier}
    tried = {frozenset(word for word in each.split()) for stage in select.methods["hip"].stages for each in stage}
    assert frozenset(CHANGES[setting]) in {*tried, frozenset()}
    assert {select.seed, *select.final_seeds} <= {int(seed) for seed in load("figure3").keys("relative", "seed")}
