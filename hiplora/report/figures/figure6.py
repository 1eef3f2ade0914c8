"""Figure 6: the cost of perturbing a singular direction, in bins of the singular value."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from hiplora.report.aggregate import Sample
from hiplora.report.correlation import COSTS, costs
from hiplora.report.evidence import Evidence
from hiplora.report.figure import COLUMN, Dot, Figure, dot, draw_bars, legend_above, looks, plain_log, say_empty
from hiplora.report.marks import joined
from hiplora.report.notes import figure
from hiplora.report.tables.table3 import PROBED

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Canvas

BINS = 6
UNITS = {"acc": "drop in accuracy (pp)", "nll": "rise in NLL (nats/token)"}
NOTES = (
    PROBED,
    f"The interventions of each kind are divided into {BINS} quantile bins of σ. A point is the mean over a bin, at "
    "its mean σ; bars are 95 % Student-t intervals, as if interventions were independent. In parentheses: the number "
    "of interventions.",
)


def build(evidence: Evidence) -> Figure:
    """A panel per cost, a line per perturbation."""
    dots = tuple(
        each for metric in COSTS for key in evidence.experiment.labels for each in _line(evidence, metric, key)
    )
    return figure(evidence, "Figure 6", dots=dots, draw=_draw, size=(COLUMN, 3.6), notes=NOTES)


def _line(evidence: Evidence, metric: str, perturbation: str) -> Iterator[Dot]:
    measured = costs(evidence, perturbation, metric)
    order = np.argsort(measured.sigma, kind="stable")
    for bin in np.array_split(order, min(BINS, len(order))) if order.size else ():
        found = {int(i): measured.cost.of[int(i)] for i in bin}
        x = float(measured.sigma[bin].mean())
        yield dot(metric, evidence.experiment.label(perturbation), x, Sample(found, len(bin)))


def _draw(canvas: Canvas, made: Figure) -> None:
    shown = looks(made.series)
    both = canvas.subplots(len(COSTS), 1, sharex=True)
    for axes, metric in zip(both, COSTS, strict=True):
        axes.axhline(0, color="0.6", linewidth=0.5, zorder=0)
        axes.set(xscale="log", ylabel=UNITS[metric])
        for number, (name, dots) in enumerate(made.panel(metric).items()):
            draw_bars(axes, dots, shift=2.5 * (number - 1), **shown[name])
        say_empty(axes, made.panel(metric))
    plain_log(both[-1].xaxis)
    both[-1].set_xlabel("singular value σ of the perturbed direction")
    legend_above(canvas, made, shown, text=_counted)


def _counted(dots: Sequence[Dot]) -> str:
    """A series with its marks and the number of interventions behind its line."""
    return f"{dots[0].series}{joined(each.marks for each in dots)} ({sum(each.n for each in dots) // len(COSTS)})"
