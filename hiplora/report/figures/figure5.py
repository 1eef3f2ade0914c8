"""Figure 5: training loss of HiP-LoRA and its ablations, and the differences of theirs to its."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from hiplora.report.aggregate import Sample, trainings
from hiplora.report.evidence import Evidence
from hiplora.report.figure import COLUMN, Dot, Figure, dot, draw_bands, legend_above, looks, plain_log, say_empty
from hiplora.report.notes import figure
from hiplora.report.slots import Number
from hiplora.stages.results import Adapter

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Canvas

WINDOWS = 12
LOSS, APART = "loss", "minus HiP-LoRA's"
LINEAR = 0.02  # nats within which the axis of differences is linear
NOTES = (
    f"Task loss in nats per label token, without the stability budget, averaged over {WINDOWS} windows of the steps; "
    "for each seed the mean over the adapters of the four tasks, then over seeds, with the 95 % Student-t band over "
    "seeds.",
    "Below: the same minus HiP-LoRA's. All trainings of a seed see the same examples in the same order, so the effect "
    f"of the examples on the loss cancels there; the axis is linear within ±{LINEAR} nats and logarithmic beyond. In "
    "parentheses: the number of seeds, in the panel with the fewest.",
)


def build(evidence: Evidence) -> Figure:
    """Panels of the loss and of the difference to the full method, for each parameterisation."""
    dots: list[Dot] = []
    for group in evidence.experiment.groups:
        whole, *ablations = evidence.experiment.keys(group, "method")
        curves = {method: _curves(evidence, group, method) for method in (whole, *ablations)}
        for method, samples in curves.items():
            dots += _dots(evidence, (LOSS, group, method), samples)
        for method in ablations:
            apart = [(x, one.minus(other)) for (x, one), (_, other) in zip(curves[method], curves[whole], strict=False)]
            dots += _dots(evidence, (APART, group, method), apart)
    return figure(evidence, "Figure 5", dots=tuple(dots), draw=_draw, size=(COLUMN, 3.8), notes=NOTES)


def _curves(evidence: Evidence, group: str, method: str) -> list[tuple[float, Sample]]:
    """The mean step and the loss of every window, for the seeds that have all tasks."""
    seeds = len(evidence.experiment.keys(group, "seed"))
    behind = trainings(evidence, group, method)
    curves = {seed: [cast(Adapter, entry.result).curve for entry in each] for seed, each in behind.items()}
    losses = {seed: _windows(each) for seed, each in curves.items() if all(each)}
    steps = next(iter(losses.values()), {})  # the same for all, as all trainings have as many steps
    numbers = {x: {seed: Number.of(each[x], behind[seed]) for seed, each in losses.items()} for x in steps}
    return [(x, Sample(of, seeds)) for x, of in numbers.items()]


def _windows(curves: Sequence[Sequence[Mapping[str, float]]]) -> dict[float, float]:
    """The mean loss of every window by its mean step, over adapters trained for equally many steps."""
    losses = np.array([[entry["loss"] for entry in curve] for curve in curves]).mean(axis=0)
    steps = np.arange(1, len(losses) + 1)
    cut = (np.array_split(each, min(WINDOWS, len(losses))) for each in (steps, losses))
    return {float(step.mean()): float(loss.mean()) for step, loss in zip(*cut, strict=True)}


def _dots(evidence: Evidence, place: tuple[str, str, str], samples: Sequence[tuple[float, Sample]]) -> Iterator[Dot]:
    what, group, method = place
    panel = f"{evidence.experiment.label(group)}, {what}"
    for x, losses in samples:
        if losses.of:
            yield dot(panel, evidence.experiment.label(method), x, losses)


def _draw(canvas: Canvas, made: Figure) -> None:
    shown = looks(made.series)
    groups = list(dict.fromkeys(panel.rpartition(", ")[0] for panel in made.panels))
    grid: Any = canvas.subplots(2, len(groups), sharex=True, sharey="row", squeeze=False)
    for (above, below), group in zip(grid.T, groups, strict=True):
        above.set(title=group, yscale="log")  # before drawing, since it affects the margins
        below.set_yscale("symlog", linthresh=LINEAR)
        for axes, what in ((above, LOSS), (below, APART)):
            panel = made.panel(f"{group}, {what}")
            for name, dots in panel.items():
                draw_bands(axes, dots, markevery=2, **shown[name])
            say_empty(axes, panel)
        plain_log(above.yaxis)
        below.axhline(0, color="black", linewidth=0.8)
        below.set_xlabel("optimizer step")
    grid[0, 0].set_ylabel("task loss (nats/token)")
    grid[1, 0].set_ylabel("minus HiP-LoRA's")
    legend_above(canvas, made, shown)
