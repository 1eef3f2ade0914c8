"""Figure 3: the effect of λ and γ of the stability budget on learning and forgetting, beside scaling LoRA's update."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import pandas as pd

from hiplora.report.aggregate import Sample
from hiplora.report.evidence import Evidence
from hiplora.report.figure import COLUMN, Dot, Figure, dot, draw_bands, draw_bars, legend_above, looks, say_empty
from hiplora.report.marks import joined
from hiplora.report.notes import figure
from hiplora.report.slots import Number

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Canvas

LORA = "lora"  # the group and its one method
GREY = {"color": "0.55", "zorder": 1}
GROUPS = ("relative", "absolute")
NOTES = (
    "Word problems, on validation. Learning is the fall of the adapter's own NLL from the backbone's, forgetting the "
    "rise of the cross-entropy on general text; both relative to LoRA's adapter of the same seed, which is at (1, 1). "
    "A point is the mean of a setting over the seeds, with 95 % Student-t intervals of these ratios.",
    "The grey line is LoRA's update scaled, c ΔW, with the interval of its forgetting: the effect of a smaller update "
    "alone. A setting below it forgets less than LoRA at the same learning.",
    "λ is the weight of the stability budget, γ the exponent of the singular-value weights. A point is named by the "
    "setting that it changes; the heading gives the others. Everything else is the same within a panel; the learning "
    "rate is that of the selected method. In parentheses: the number of seeds, in the panel with fewer.",
)
Ratios = dict[str, Sample]  # of "gain" and "text"


def build(evidence: Evidence) -> Figure:
    """LoRA's line in every panel, a point per setting."""
    units = _values(evidence, LORA, LORA, 1.0)
    line = [pair for c in _scales(evidence) if (pair := _ratios(evidence, LORA, LORA, c, units))["text"].of]
    dots: list[Dot] = []
    for group in GROUPS:
        panel = evidence.experiment.label(group)
        dots += [dot(panel, evidence.experiment.label(LORA), pair["gain"], pair["text"]) for pair in line]
        for setting in evidence.experiment.keys(group, "method"):
            pair = _ratios(evidence, group, setting, 1.0, units)
            if pair["text"].of:
                dots.append(dot(panel, evidence.experiment.label(setting), pair["gain"], pair["text"]))
    return figure(evidence, "Figure 3", dots=tuple(dots), draw=_draw, size=(COLUMN, 4.6), notes=NOTES)


def _scales(evidence: Evidence) -> list[float]:
    frame = evidence.frontiers
    return sorted(set(frame[frame["group"] == LORA]["scale"]) - {0.0})


def _values(evidence: Evidence, group: str, method: str, scale: float) -> dict[int, Any]:
    """The frontiers' rows by seed: each seed's adapter with its finished update at a scale."""
    frame = evidence.frontiers
    mine = (frame["group"] == group) & (frame["method"] == method)
    return {row.seed: row for row in frame[mine & (frame["scale"] == scale) & (frame["fraction"] == 1)].itertuples()}


def _ratios(evidence: Evidence, group: str, method: str, scale: float, units: Mapping[int, Any]) -> Ratios:
    """What each seed's adapter has learned and forgotten, relative to LoRA's of the same seed."""
    found: Ratios = {}
    for measure in ("gain", "text"):
        of = {}
        for seed, row in _values(evidence, group, method, scale).items():
            if seed in units and not pd.isna(getattr(row, measure)):
                value = getattr(row, measure) / getattr(units[seed], measure)
                of[seed] = Number(value, (*row.runs, *units[seed].runs), joined([row.marks, units[seed].marks]))
        found[measure] = Sample(of, len(evidence.experiment.keys(group, "seed")))
    return found


def _draw(canvas: Canvas, made: Figure) -> None:
    lora, *settings = made.series or [""]
    shown = {lora: GREY, **{name: {**look, "linestyle": "none"} for name, look in looks(settings).items()}}
    every: list[Any] = list(canvas.subplots(len(made.panels), 1, sharex=True, sharey=True, squeeze=False)[:, 0])
    for axes, panel in zip(every, made.panels, strict=True):
        for name, dots in made.panel(panel).items():
            draw = draw_bands if name == lora else draw_bars
            draw(axes, dots, **shown[name])
        axes.set(title=panel, ylabel="forgetting (text; LoRA = 1)")
        say_empty(axes, made.panel(panel))
    every[-1].set_xlabel("learning (fall of own NLL; LoRA = 1)")
    legend_above(canvas, made, shown)
