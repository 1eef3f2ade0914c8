"""Figure 7: forgetting against learning, over scales of the finished update and along training; merges."""

from __future__ import annotations

from collections.abc import Iterator
from statistics import fmean
from typing import TYPE_CHECKING, Any

from hiplora.report.aggregate import Sample, per_seed
from hiplora.report.evidence import Evidence
from hiplora.report.figure import COLUMN, Dot, Figure, dot, draw_bands, legend_above, legend_text, looks, say_empty
from hiplora.report.matched import point
from hiplora.report.notes import figure, level_notes
from hiplora.report.tables.table16 import LORA, Arms

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Canvas

FRONTIER, TRAINING, LEVEL, MERGES, BY_SEED = "frontier", "training", "level", "merges", ", by seed"
GROUPS = ("frontier", "longer")  # groups of runs; the second has only one task
NOTES = (
    "Left: learning is the fall of the own NLL on validation from the backbone's, forgetting the rise of the "
    "cross-entropy on general text; both in units of LoRA's mean at c = 1 for the task, averaged over the tasks of a "
    "seed, then over seeds, with the 95 % Student-t band of the forgetting. Points are scales c of the finished "
    "update; the thin line behind them is the training at c = 1. All lines start at (0, 0), left of what is shown. The "
    "dotted line is the level of Table 16. In parentheses: the number of seeds.",
    "Right: the share of its adapters' gains in NLL that a merge of four keeps, against the mean of these gains "
    "(test); each adapter at its level, without the seeds that have an adapter that never reaches it. Small: one seed; "
    "large: their mean with its 95 % Student-t interval.",
)


def build(evidence: Evidence) -> Figure:
    """For each arm a frontier and its training; for each arm and operator a cloud of merges."""
    dots = [*_level(evidence)]
    for group in GROUPS:
        for arm in evidence.experiment.keys(group, "method"):
            dots += [*_curve(evidence, group, arm)]
    for arm in evidence.experiment.keys("merges", "method"):
        for operator in evidence.experiment.keys("merges", "merge"):
            dots += [*_merges(evidence, arm, operator)]
    notes = [*NOTES, *level_notes(evidence, FRONTIER)]
    return figure(evidence, "Figure 7", dots=tuple(dots), draw=_draw, size=(2 * COLUMN, 2.9), notes=notes)


def _level(evidence: Evidence) -> Iterator[Dot]:
    """The level of Table 16 on the axis of learning, the mean over the tasks."""
    tasks = evidence.comparable(FRONTIER)
    units = [Arms(evidence, [task]).mean(LORA, "whole/gain") for task in tasks]
    if tasks and all(unit.of and task in evidence.usable for task, unit in zip(tasks, units, strict=True)):
        falls = [evidence.bare[task] - evidence.usable[task] for task in tasks]
        x = fmean(fall / unit.mean for fall, unit in zip(falls, units, strict=True))
        yield Dot(panel=LEVEL, series="level", x=x, y=0.0, n=len(tasks), n_expected=len(tasks))


def _curve(evidence: Evidence, group: str, arm: str) -> Iterator[Dot]:
    """The points of one arm, by scale and by step, over the seeds that have all tasks."""
    arms, slots = Arms(evidence, evidence.comparable(group), group), evidence.select(group, method=arm)
    points = {each for of in evidence.frontiers if of.slot in slots for each in of.drawn}
    for scale, fraction in sorted(points):
        learned, lost = (arms.ratio(arm, f"{point(scale, fraction)}/{x}", per=f"whole/{x}") for x in ("gain", "text"))
        for panel, shown in {FRONTIER: fraction in (0, 1), TRAINING: scale in (0, 1)}.items():
            if shown and lost.of:
                yield dot(panel, evidence.experiment.label(arm), learned.mean, lost)


def _merges(evidence: Evidence, arm: str, operator: str) -> Iterator[Dot]:
    """Every merge of a seed whose adapters are all at the level, then their mean, in separate panels."""
    kept = Arms(evidence, evidence.comparable(FRONTIER)).kept(arm, merge=operator)
    gains = per_seed(evidence, "kept_of", group="merges", method=arm, merge=operator)
    name, panel = evidence.experiment.label(arm), f"{MERGES}, {evidence.experiment.label(operator)}"
    for seed, each in kept.of.items():
        yield dot(panel + BY_SEED, name, gains.of[seed].value, Sample({seed: each}, 1))
    if kept.of:
        yield dot(panel, name, fmean(gains.of[seed].value for seed in kept.of), kept)


def _draw(canvas: Canvas, made: Figure) -> None:
    series = list(dict.fromkeys(each.series for each in made.dots if each.panel != LEVEL))
    shown = looks(series)
    left, right = canvas.subplots(1, 2)
    _draw_frontiers(left, made, shown)
    _draw_merges(right, made, shown)
    legend_above(canvas, made, shown, text=lambda dots: legend_text([each for each in dots if each.panel == FRONTIER]))


def _draw_frontiers(axes: Any, made: Figure, shown: dict[str, dict[str, Any]]) -> None:
    for name, dots in made.panel(TRAINING).items():
        xs, ys = [each.x for each in dots], [each.y for each in dots]
        axes.plot(xs, ys, color=shown[name]["color"], linewidth=0.5, alpha=0.6, zorder=1)
    for name, dots in made.panel(FRONTIER).items():
        draw_bands(axes, dots, zorder=3, **shown[name])
    for level in made.panel(LEVEL).get("level", []):
        axes.axvline(level.x, color="0.5", linestyle=":", linewidth=0.8, zorder=0)
        axes.annotate("level", (level.x, 1), xycoords=("data", "axes fraction"), ha="right", va="top", color="0.4")
    moved = [each.x for panel in (FRONTIER, TRAINING) for dots in made.panel(panel).values() for each in dots if each.y]
    if moved:
        axes.set_xlim(left=min(moved) - 0.1 * (max(moved) - min(moved)))  # from (0, 0) every method would look alike
    axes.set(xlabel="learning (fall of own NLL, validation; LoRA = 1)", ylabel="forgetting (text; LoRA = 1)")
    say_empty(axes, made.panel(FRONTIER))


def _draw_merges(axes: Any, made: Figure, shown: dict[str, dict[str, Any]]) -> None:
    means = [name for name in made.panels if name.startswith(MERGES) and not name.endswith(BY_SEED)]
    for panel, face in zip(means, ({}, {"markerfacecolor": "white"}), strict=False):
        for name, dots in made.panel(panel + BY_SEED).items():
            look = {"color": shown[name]["color"], "marker": shown[name]["marker"], "linestyle": "none", **face}
            single = {"markersize": 2, "markeredgewidth": 0.4, "alpha": 0.5, "zorder": 1}
            axes.plot([each.x for each in dots], [each.y for each in dots], **single, **look)
            (mean,) = made.panel(panel)[name]
            ends = None
            if mean.low is not None and mean.high is not None:
                ends = [[mean.y - mean.low], [mean.high - mean.y]]
            axes.errorbar([mean.x], [mean.y], yerr=ends, markersize=5, capsize=2, elinewidth=0.8, zorder=3, **look)
        sign = {"color": "0.3", "marker": "o", "linestyle": "none", **face}
        axes.plot([], [], label=panel.removeprefix(f"{MERGES}, "), **sign)
    axes.set(xlabel="gain of the adapters alone (nats/token, test)", ylabel="share of the gain kept in a merge")
    axes.legend(loc="best", handlelength=1) if means else say_empty(axes, [])
