"""Figures from simulated frontiers and fixture merges: their points against golden files, the same bytes each time."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hiplora.report.aggregate import per_seed
from hiplora.report.correlation import costs
from hiplora.report.figure import (
    Dot,
    Figure,
    legend_text,
    looks,
    panel_title,
    pictures,
    shared_legend_text,
    to_csv,
)
from hiplora.report.figures import FIGURES
from hiplora.report.figures.figure5 import APART as LESS
from hiplora.report.figures.figure5 import LOSS, WINDOWS
from hiplora.report.marks import STALE
from tests.report.evidence import HERE, WORLD, build, fixture_evidence, golden
from tests.report.frontiers import GAIN
from tests.report.trainings import APART, SIGMAS, gains


def all_but(**label):
    """What keeps every fixture but those of a label."""
    return lambda found: not label.items() <= found.items()


@pytest.fixture(scope="module")
def built() -> dict[str, Figure]:
    return {name: build(name, fixture_evidence(name)) for name in FIGURES}


@pytest.mark.parametrize("name", FIGURES)
def test_golden(name, built, tmp_path):
    figure = built[name]
    assert to_csv(figure.dots) == golden(HERE / "golden" / f"{name}.csv", to_csv(figure.dots))
    paths = {path.suffix: path for path in figure.write(tmp_path)}
    assert paths.keys() == {".png", ".pdf", ".csv", ".md"}
    first = {suffix: path.read_bytes() for suffix, path in paths.items()}
    assert first[".png"].startswith(b"\x89PNG")
    assert first[".pdf"].startswith(b"%PDF")
    assert b"CreationDate" not in first[".pdf"]
    assert {f".{ending}": content for ending, content in pictures(figure).items()}.items() <= first.items()


@pytest.mark.parametrize("name", FIGURES)
def test_every_figure_renders_without_any_record(name):
    figure = build(name, fixture_evidence(name, keep=lambda label: False))
    assert figure.dots == ()
    assert figure.commands
    assert pictures(figure).keys() == {"png", "pdf"}


def test_frontiers_are_in_units_of_lora(built):
    figure = built["figure7"]
    ends = {name: dots[-1] for name, dots in figure.panel("frontier").items()}
    assert (ends["LoRA"].x, ends["LoRA"].y) == (pytest.approx(1), pytest.approx(1))
    assert ends["HiP-LoRA"].low < WORLD.forgets["hip"] < ends["HiP-LoRA"].high
    assert figure.panel("frontier")["LoRA"][0].x == 0
    (level,) = figure.panel("level")["level"]
    assert level.x == pytest.approx(0.75 * GAIN / GAIN, abs=0.01)
    mean, seeds = (figure.panel(name)["HiP-LoRA"] for name in ("merges, TIES", "merges, TIES, by seed"))
    assert len(seeds) == 6
    assert mean[0].y == pytest.approx(sum(each.y for each in seeds) / 6)


def test_merges_of_adapters_that_never_reach_the_level_are_left_out():
    evidence = fixture_evidence("figure7", world=replace(WORLD, learns={"hip": 0.77}))
    at_level = per_seed(evidence, "scale/c", group="frontier", method="hip").of.keys()
    assert 1 < len(at_level) < 6
    figure = build("figure7", evidence)
    (mean,), seeds = (figure.panel(name)["HiP-LoRA"] for name in ("merges, TIES", "merges, TIES, by seed"))
    assert (mean.n, mean.n_expected, len(seeds)) == (len(at_level), 6, len(at_level))


def test_settings_are_in_units_of_loras_adapter_of_the_same_seed():
    """Without noise of an arm's own, a setting lies where the world puts it; a seed that LoRA lacks says nothing."""
    figure = build("figure3", fixture_evidence("figure3", world=replace(WORLD, noise=0)))
    panel = figure.panel(next(iter(dict.fromkeys(each.panel for each in figure.dots))))
    (point,) = panel["λ = 1e-3"]
    assert (point.x, point.y, point.n) == (pytest.approx(WORLD.learns["l3"]), pytest.approx(WORLD.forgets["l3"]), 3)
    assert (point.x_low, point.low) == (pytest.approx(point.x), pytest.approx(point.y))
    lora = panel["LoRA, c ΔW"]
    assert [each.x for each in lora] == sorted(each.x for each in lora)
    assert (lora[-1].x, lora[-1].y) == (1, 1)
    assert {*lora[-1].runs} < {*point.runs}, "what it is divided by stands behind it too"
    short = build(
        "figure3", fixture_evidence("figure3", keep=lambda label: (label["method"], label.get("seed")) != ("lora", 8))
    )
    assert {each.n for each in short.dots} == {2}
    assert "x_low" in to_csv(short.dots).splitlines()[0]


def test_gains_are_means_over_seeds_of_each_bin():
    figure = build(
        "figure4", fixture_evidence("figure4", keep=lambda label: label["seed"] != 9 or label["method"] != "g2")
    )
    dots = figure.panel("relative gains")["γ = 2"]
    of = [gains("relative", 2.0, seed) for seed in (7, 8)]
    assert [each.y for each in dots] == pytest.approx(
        [(one.size + other.size) / 2 for one, other in zip(*of, strict=True)]
    )
    assert [each.x for each in dots] == pytest.approx(SIGMAS)
    assert legend_text(dots) == "γ = 2 (2/3)"


def test_a_mark_of_one_panel_is_in_its_title_and_not_in_the_legend_of_all():
    def dot(panel, series, marks=""):
        return Dot(panel=panel, series=series, x=0, y=0, n=2, n_expected=2, marks=marks)

    dots = [dot("one", "a"), dot("one", "b", "†"), *(dot("two", name, "§") for name in "ac"), dot("two", "b", "†§")]
    made = replace(build("figure4", fixture_evidence("figure4")), dots=(*dots, dot("two", "LoRA"), dot("one", "LoRA")))
    assert [panel_title(made, panel) for panel in ("one", "two")] == ["one", "two (§ for all but LoRA)"]
    legend = [shared_legend_text([each for each in made.dots if each.series == name]) for name in "abc"]
    assert legend == ["a (2)", "b† (2)", "c§ (2)"]


def test_what_seeds_share_cancels_in_differences_of_losses():
    figure = build("figure5", fixture_evidence("figure5"))
    loss, apart = (figure.panel(f"relative gains, {what}")["without residual projection"] for what in (LOSS, LESS))
    assert sum(each.y for each in apart) / len(apart) == pytest.approx(APART["no_projection"], abs=0.005)
    assert max(each.high - each.low for each in apart[1:]) < min(each.high - each.low for each in loss[1:])
    assert (loss[0].x, len(loss)) == (3, WINDOWS), "the mean step of the first five of 60"
    whole = fixture_evidence(
        "figure5", keep=lambda label: (label["method"], label["seed"], label["task"]) != ("whole", 42, "code")
    )
    short = build("figure5", whole).panel(f"relative gains, {LESS}")["without residual projection"]
    assert {(each.n, each.n_expected) for each in short} == {(2, 3)}


def test_bins_of_the_probe_hold_every_intervention_once():
    evidence = fixture_evidence("figure6")
    figure = build("figure6", evidence)
    for perturbation in ("zero", "flip", "noise"):
        dots, measured = figure.panel("nll")[perturbation], costs(evidence, perturbation, "nll")
        assert sum(each.n for each in dots) == len(measured.cost.of)
        assert sum(each.n * each.y for each in dots) == pytest.approx(measured.cost.values.sum())
        assert [each.x for each in dots] == sorted(each.x for each in dots)


def test_the_share_of_merges_falls_with_what_must_be_kept(built):
    figure = built["figure8"]
    shares = [each.y for each in figure.panel("addition")["LoRA"]]
    assert shares == sorted(shares, reverse=True)
    assert (shares[0], figure.panel("addition")["HiP-LoRA"][0].n_expected) == (100, 18)


def test_marks_and_missing_seeds_reach_the_legend_and_the_page():
    evidence = fixture_evidence("figure7", keep=lambda label: (label["method"], label.get("seed")) != ("hip", 3))
    slots = [
        replace(slot, entries=tuple(replace(e, marks=STALE) if e.role == "frontier" else e for e in slot.entries))
        for slot in evidence.slots
    ]
    figure = build("figure7", replace(evidence, slots=slots))
    assert legend_text(figure.panel("frontier")["HiP-LoRA"]) == "HiP-LoRA‡ (5/6)"
    assert "‡ stale" in figure.text()
    assert ",‡" in to_csv(figure.dots)


def test_a_method_looks_the_same_whatever_it_is_drawn_with():
    alone, among = looks(["HiP-LoRA"]), looks(["Split-LoRA", "LoRA", "PiSSA", "HiP-LoRA"])
    assert alone["HiP-LoRA"] == among["HiP-LoRA"]
    assert len({look["marker"] for look in among.values()}) == 4


def test_a_series_more_than_there_are_looks_is_refused():
    assert len({look["marker"] for look in looks(list("abcdefg")).values()}) == 7
    with pytest.raises(ValueError, match="add to SERIES"):
        looks(list("abcdefgh"))
    assert legend_text([Dot(panel="", series="a", x=0, y=0, n=2, n_expected=2)]) == "a (2)"
