"""Figure 4: how far the principal gains of HiP-LoRA move, by singular value and γ."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, cast

from hiplora.report.aggregate import Sample, trainings
from hiplora.report.evidence import Evidence
from hiplora.report.figure import (
    COLUMN,
    Dot,
    Figure,
    dot,
    draw_bands,
    legend_above,
    looks,
    panel_title,
    plain_log,
    say_empty,
    shared_legend_text,
)
from hiplora.report.notes import figure
from hiplora.report.slots import Number
from hiplora.stages.results import Adapter

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Canvas

GROUPS = ("relative", "absolute")
NOTES = (
    "φ_i is what training has added to the singular value σ_i of a direction of the backbone (relative gains: φ_i = "
    "σ_i δ_i, and δ_i is trained). The directions of all adapted matrices are divided into quantile bins of σ. A "
    "point is the mean of |φ_i| over a bin, at its mean σ, then over seeds; bands are 95 % Student-t intervals over "
    "the seeds. In parentheses: the number of seeds, in the panel with fewer; a mark that holds in one panel "
    "alone is in its title.",
    "The stability budget is λ Σ w_i φ_i² with w_i ∝ σ_i^γ, normalised to a mean of 1 in each matrix: a larger γ "
    "protects the leading directions more, γ = 0 protects all equally. λ is fixed in each panel (conf/experiment/"
    "figure4.yaml). The axes of the two panels differ.",
)


def build(evidence: Evidence) -> Figure:
    """A panel per parameterisation, a line per γ."""
    dots = [
        each
        for group in GROUPS
        for method in evidence.experiment.keys(group, "method")
        for each in _line(evidence, group, method)
    ]
    return figure(evidence, "Figure 4", dots=tuple(dots), draw=_draw, size=(COLUMN, 3.8), notes=NOTES)


def _line(evidence: Evidence, group: str, method: str) -> Iterator[Dot]:
    """The points of one γ. Bins depend on the backbone alone, so bins of the same number have the same directions."""
    panel, name = (evidence.experiment.label(key) for key in (group, method))
    seeds = evidence.experiment.keys(group, "seed")
    behind = trainings(evidence, group, method)
    gains = {seed: of for seed, (entry,) in behind.items() if (of := cast(Adapter, entry.result).gains)}
    for bins in zip(*gains.values(), strict=True):
        sizes = {seed: Number.of(bin.size, behind[seed]) for seed, bin in zip(gains, bins, strict=True)}
        yield dot(panel, name, bins[0].sigma, Sample(sizes, len(seeds)))


def _draw(canvas: Canvas, made: Figure) -> None:
    shown = looks(made.series)
    every: list[Any] = list(canvas.subplots(len(made.panels), 1, sharex=True, squeeze=False)[:, 0])
    for axes, panel in zip(every, made.panels, strict=True):
        for name, dots in made.panel(panel).items():
            draw_bands(axes, dots, **shown[name])
        axes.set(title=panel_title(made, panel), xscale="log", ylabel="mean |φ|")
        axes.set_ylim(bottom=0)
        say_empty(axes, made.panel(panel))
    plain_log(every[-1].xaxis)
    every[-1].set_xlabel("singular value σ of the direction")
    legend_above(canvas, made, shown, text=shared_legend_text)
