"""Figure 3: the effect of λ and γ of the stability budget on learning and forgetting, beside scaling LoRA's update."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from hiplora.report.aggregate import per_seed
from hiplora.report.evidence import Evidence
from hiplora.report.figure import (
    COLUMN,
    Dot,
    Figure,
    dot,
    draw_bands,
    draw_bars,
    legend_above,
    looks,
    panel_title,
    say_empty,
    shared_legend_text,
)
from hiplora.report.matched import point
from hiplora.report.notes import figure

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
    "rate is that of the selected method. In parentheses: the number of seeds, in the panel with fewer; a mark that "
    "holds in one panel alone is in its title.",
)


def build(evidence: Evidence) -> Figure:
    """LoRA's line in every panel, a point per setting."""
    dots: list[Dot] = []
    for group in GROUPS:
        panel = evidence.experiment.label(group)
        for scale in _scales(evidence):
            dots += _dot(evidence, panel, (LORA, LORA), scale)
        for setting in evidence.experiment.keys(group, "method"):
            dots += _dot(evidence, panel, (group, setting), 1.0)
    return figure(evidence, "Figure 3", dots=tuple(dots), draw=_draw, size=(COLUMN, 4.6), notes=NOTES)


def _scales(evidence: Evidence) -> list[float]:
    """The scales at which LoRA's finished update was measured."""
    slots = evidence.select(LORA)
    points = {each for of in evidence.frontiers if of.slot in slots for each in of.drawn}
    return sorted(scale for scale, fraction in points if fraction == 1)


def _dot(evidence: Evidence, panel: str, row: tuple[str, str], scale: float) -> Iterator[Dot]:
    """What each seed's adapter has learned and forgotten at a scale, relative to LoRA's of the same seed."""
    group, method = row
    learned, lost = (
        per_seed(evidence, f"{point(scale, 1)}/{x}", group=group, method=method).over(
            per_seed(evidence, f"whole/{x}", group=LORA, method=LORA)
        )
        for x in ("gain", "text")
    )
    if lost.of:
        yield dot(panel, evidence.experiment.label(method), learned, lost)


def _draw(canvas: Canvas, made: Figure) -> None:
    lora, *settings = made.series or [""]
    shown = {lora: GREY, **{name: {**look, "linestyle": "none"} for name, look in looks(settings).items()}}
    every: list[Any] = list(canvas.subplots(len(made.panels), 1, sharex=True, sharey=True, squeeze=False)[:, 0])
    for axes, panel in zip(every, made.panels, strict=True):
        for name, dots in made.panel(panel).items():
            draw = draw_bands if name == lora else draw_bars
            draw(axes, dots, **shown[name])
        axes.set(title=panel_title(made, panel), ylabel="forgetting (text; LoRA = 1)")
        say_empty(axes, made.panel(panel))
    every[-1].set_xlabel("learning (fall of own NLL; LoRA = 1)")
    legend_above(canvas, made, shown, text=shared_legend_text)
