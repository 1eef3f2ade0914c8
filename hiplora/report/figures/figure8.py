"""Figure 8: the share of merges that keep τ of every task's gain in NLL, as a function of τ."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from hiplora.report.aggregate import Sample, per_instance
from hiplora.report.evidence import Evidence
from hiplora.report.figure import COLUMN, Dot, Figure, dot, legend_text, looks, say_empty
from hiplora.report.notes import figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Canvas

TAUS = np.linspace(0, 1, 21)
GROUPS = ("addition", "ties")  # groups of runs, one panel each
NOTES = (
    "The share of merges for which the smallest (base − merged) / (base − own) over the tasks, in NLL of the gold "
    "answers, is at least τ. Merges of all sizes are pooled; those with an adapter that gained nothing are left out.",
    "In parentheses: the number of merges. The CSV has the 95 % adapter-level (pigeonhole) bootstrap interval of every "
    "share, since merges share adapters.",
)


def build(evidence: Evidence) -> Figure:
    """One line per method and operator."""
    dots = tuple(each for group in GROUPS for each in _lines(evidence, group))
    return figure(evidence, "Figure 8", dots=dots, draw=_draw, size=(2 * COLUMN, 2.4), notes=NOTES)


def _lines(evidence: Evidence, group: str) -> Iterator[Dot]:
    panel = evidence.experiment.label(group)
    for method in evidence.experiment.keys(group, "method"):
        sample = per_instance(evidence, "kept_least", group=group, method=method)
        for tau in TAUS if sample.of else ():
            kept = {key: replace(each, value=100.0 * (each.value >= tau)) for key, each in sample.of.items()}
            shares = Sample(kept, sample.expected)
            yield dot(panel, evidence.experiment.label(method), float(tau), shares, level="adapter")


def _draw(canvas: Canvas, made: Figure) -> None:
    every: list[Any] = list(canvas.subplots(1, len(made.panels), sharey=True, squeeze=False)[0])
    for axes, panel in zip(every, made.panels, strict=True):
        for name, dots in made.panel(panel).items():
            xs, ys = [each.x for each in dots], [each.y for each in dots]
            axes.plot(xs, ys, drawstyle="steps-pre", label=legend_text(dots), markevery=4, **looks(made.series)[name])
        axes.set(title=panel, xlabel="τ, share of every task's gain", xlim=(-0.03, 1.03), ylim=(-3, 103))
        axes.legend(loc="upper right") if made.panel(panel) else say_empty(axes, [])
    every[0].set_ylabel("merges that keep it (%)")
