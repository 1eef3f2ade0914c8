"""A figure: its points as CSV, its picture as PNG and PDF, its caption and notes as Markdown.

The same records give the same bytes: the files hold no timestamp, and the fonts are matplotlib's own.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hiplora.disk import write_atomically
from hiplora.report.aggregate import Sample
from hiplora.report.marks import joined
from hiplora.report.table import rows_as_csv

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Canvas

COLUMN = 3.35  # width of a paper's column, in inches
STYLE: Any = {
    "font.family": "DejaVu Sans", "font.size": 7, "axes.labelsize": 7, "axes.titlesize": 7, "legend.fontsize": 6,
    "xtick.labelsize": 6, "ytick.labelsize": 6, "axes.linewidth": 0.6, "xtick.major.width": 0.6,
    "ytick.major.width": 0.6, "lines.linewidth": 1.1, "lines.markersize": 3.5, "axes.spines.top": False,
    "axes.spines.right": False, "legend.frameon": False, "legend.handlelength": 2.6, "pdf.fonttype": 42,
}  # fmt: skip
# Okabe and Ito's colours, distinct with any colour vision; markers and dashes distinguish them in greyscale.
SERIES = (
    ("#000000", "o", "-"), ("#0072B2", "s", (0, (5, 1.5))), ("#56B4E9", "^", (0, (1, 1))),
    ("#E69F00", "D", (0, (4, 1, 1, 1))), ("#D55E00", "v", "-"), ("#009E73", "P", (0, (5, 1, 1, 1, 1, 1))),
    ("#CC79A7", "X", (0, (2, 1))),
)  # fmt: skip
# The methods compared most look the same in every picture; by their labels in figures, and their names on the page.
FIXED = {"LoRA": 0, "lora": 0, "Proj-LoRA": 1, "proj": 1, "HiP-LoRA": 4, "hip": 4}


@dataclass(frozen=True, kw_only=True)
class Dot:
    """One point of a series: the mean of ``n`` of ``n_expected`` values, with a 95 % interval if it has one.

    ``x_low`` and ``x_high`` are the interval of x, if x is measured too; ``runs`` are ids of records, not in the CSV.
    """

    panel: str
    series: str
    x: float
    y: float
    low: float | None = None
    high: float | None = None
    n: int
    n_expected: int
    marks: str = ""
    x_low: float | None = None
    x_high: float | None = None
    runs: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A figure ready to be written; ``draw`` puts its dots on a canvas of ``size`` inches."""

    name: str
    title: str
    caption: str
    dots: tuple[Dot, ...]
    draw: Callable[[Canvas, Figure], None]
    size: tuple[float, float]
    notes: tuple[str, ...] = ()
    commands: tuple[str, ...] = ()

    @property
    def panels(self) -> list[str]:
        """The names of the panels, in order; without a point one without a name."""
        return list(dict.fromkeys(dot.panel for dot in self.dots)) or [""]

    @property
    def series(self) -> list[str]:
        """The names of the series, in order."""
        return list(dict.fromkeys(dot.series for dot in self.dots))

    def panel(self, name: str) -> dict[str, list[Dot]]:
        """The dots of one panel by series, in order."""
        found: dict[str, list[Dot]] = {}
        for dot in self.dots:
            if dot.panel == name:
                found.setdefault(dot.series, []).append(dot)
        return found

    def write(self, directory: Path) -> list[Path]:
        """Write ``<name>.png``, ``.pdf``, ``.csv`` and ``.md``, each atomically; returns their paths."""
        contents = {**pictures(self), "csv": to_csv(self.dots).encode(), "md": self.text().encode()}
        paths = {directory / f"{self.name}.{ending}": content for ending, content in contents.items()}
        for path, content in paths.items():
            write_atomically(path, content)
        return list(paths)

    def text(self) -> str:
        """The figure's page in Markdown: its picture, caption and notes, and the commands for missing runs."""
        lines = [f"# {self.title}", "", f"![{self.title}]({self.name}.png)", "", self.caption, ""]
        lines += [f"- {note}" for note in self.notes]
        if self.commands:
            lines += ["", "Some runs are missing. To make them:", "", "```", *self.commands, "```"]
        return "\n".join(lines).rstrip() + "\n"


def dot(panel: str, series: str, x: float | Sample, y: Sample, *, level: str = "t") -> Dot:
    """The mean of a non-empty sample as a point, with its interval; x is a sample too if it is measured."""
    (low, high), (x_low, x_high) = y.interval(level), x.interval(level) if isinstance(x, Sample) else (None, None)
    return Dot(
        panel=panel, series=series, x=x.mean if isinstance(x, Sample) else x, y=y.mean, low=low, high=high,
        x_low=x_low, x_high=x_high, n=len(y.of), n_expected=y.expected, marks=y.marks, runs=y.runs,
    )  # fmt: skip


def to_csv(dots: Iterable[Dot]) -> str:
    """The points as CSV, one row each; a missing number is an empty field. Intervals of x have columns if any exist."""
    dots = list(dots)
    hidden = {"runs"} | (set() if any(each.x_low is not None for each in dots) else {"x_low", "x_high"})
    return rows_as_csv(dots, Dot, hidden=hidden, digits=8)  # without the last bits, which differ between machines


def pictures(figure: Figure) -> dict[str, bytes]:
    """The figure as PNG and PDF."""
    kinds = {"png": {"Software": None}, "pdf": {"CreationDate": None, "Producer": None}}
    return {ending: _picture(figure, ending, metadata) for ending, metadata in kinds.items()}


def svg(figure: Figure) -> bytes:
    """The figure as SVG with a transparent background and its text as outlines: the same in every browser."""
    return _picture(figure, "svg", {"Date": None, "Creator": None}, transparent=True)


def _picture(figure: Figure, ending: str, metadata: dict[str, None], *, transparent: bool = False) -> bytes:
    import matplotlib
    from matplotlib.figure import Figure as Canvas

    with matplotlib.rc_context({**STYLE, "svg.hashsalt": figure.name}):
        canvas, stream = Canvas(figsize=figure.size, layout="constrained"), io.BytesIO()
        figure.draw(canvas, figure)
        about = {"Title": figure.title, **metadata}
        canvas.savefig(stream, format=ending, dpi=300, metadata=about, transparent=transparent)
    return stream.getvalue()


def looks(series: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Colour, marker and dashes of each series, as matplotlib's arguments; see :func:`places`.

    Raises:
        ValueError: there are more series than looks.
    """
    if len(series) > len(SERIES):
        raise ValueError(f"{len(series)} series, but only {len(SERIES)} looks; add to SERIES")
    shown = {name: SERIES[place] for name, place in places(series).items()}
    return {name: {"color": color, "marker": mark, "linestyle": line} for name, (color, mark, line) in shown.items()}


def places(names: Sequence[str]) -> dict[str, int]:
    """The place in ``SERIES`` of each name: its own if it is in ``FIXED``, else the next that is free."""
    fixed = {name: FIXED[name] for name in names if name in FIXED}
    free = (place for place in range(len(SERIES)) if place not in fixed.values())
    return {name: fixed[name] if name in fixed else next(free) for name in names}


def legend_text(dots: Sequence[Dot], *, marks: str | None = None) -> str:
    """A series with its marks (all of its dots' unless given) and its number of values: ``LoRA† (5/6)``."""
    few, expected = min(dot.n for dot in dots), max(dot.n_expected for dot in dots)
    held = joined(dot.marks for dot in dots) if marks is None else marks
    return f"{dots[0].series}{held} ({few if few == expected else f'{few}/{expected}'})"


def shared_legend_text(dots: Sequence[Dot]) -> str:
    """The same with the marks that the series has in each of its panels; :func:`panel_title` shows the others."""
    return legend_text(dots, marks=_shared_marks(dots))


def panel_title(made: Figure, panel: str) -> str:
    """A panel's name, with marks that some series do not have in every panel: ``name (§ for all but LoRA)``."""
    series = made.panel(panel)
    own = {name: joined(dot.marks for dot in dots) for name, dots in series.items()}
    shared = {name: _shared_marks([dot for dot in made.dots if dot.series == name]) for name in series}
    found = []
    for mark in joined(own.values()):
        having = [name for name in series if mark in own[name] and mark not in shared[name]]
        lacking = [name for name in series if mark not in own[name]]
        if having:
            rest = f"all but {', '.join(lacking)}" if len(having) > len(lacking) else ", ".join(having)
            found.append(f"{mark} for {rest}" if lacking else mark)
    return f"{panel} ({'; '.join(found)})" if found else panel


def _shared_marks(dots: Sequence[Dot]) -> str:
    """The marks that the dots of a series have in each of its panels."""
    marks = [joined(dot.marks for dot in dots if dot.panel == panel) for panel in {dot.panel for dot in dots}]
    return "".join(mark for mark in joined(marks) if all(mark in each for each in marks))


def say_empty(axes: Any, dots: Sequence[Dot] | dict[str, list[Dot]]) -> None:
    """Write "no run yet" into a panel without points."""
    if not dots:
        axes.text(0.5, 0.5, "no run yet", transform=axes.transAxes, ha="center", va="center", color="0.4")


def draw_bars(axes: Any, dots: Sequence[Dot], *, shift: float = 0.0, **look: Any) -> None:
    """Draw a line through dots, with bars for their intervals; ``shift`` moves them by points, to avoid overlaps."""
    from matplotlib.transforms import ScaledTranslation

    def ends(low: str, high: str, middle: str) -> list[tuple[float, float, float]]:
        """Both ends of each bar and its middle; without an interval all three are equal."""
        values = [[getattr(dot, name) for name in (low, high, middle)] for dot in dots]
        return [(three[2],) * 3 if None in three else tuple(three) for three in values]

    xs, ys = ends("x_low", "x_high", "x"), ends("low", "high", "y")
    place = axes.transData + ScaledTranslation(shift / 72, 0, axes.figure.dpi_scale_trans)
    shared = {"color": look["color"], "linewidth": 0.6, "transform": place, "zorder": 2}
    for (left, right, x), (low, high, y) in zip(xs, ys, strict=True):
        axes.plot([x, x], [low, high], **shared)
        axes.plot([left, right], [y, y], **shared)
    axes.plot([x for *_, x in xs], [y for *_, y in ys], **{"transform": place, "zorder": 3, **look})
    axes.update_datalim(
        [
            corner
            for (left, right, _), (low, high, _) in zip(xs, ys, strict=True)
            for corner in ((left, low), (right, high))
        ]
    )
    axes.autoscale_view()


def draw_bands(axes: Any, dots: Sequence[Dot], **look: Any) -> None:
    """Draw a line through dots on a band of their intervals."""
    bands = [(dot.x, dot.low, dot.high) for dot in dots if dot.low is not None]
    if bands:
        axes.fill_between(*zip(*bands, strict=True), color=look["color"], alpha=0.15, linewidth=0)
    axes.plot([dot.x for dot in dots], [dot.y for dot in dots], **look)


def legend_above(
    canvas: Canvas,
    made: Figure,
    shown: dict[str, dict[str, Any]],
    *,
    text: Callable[[Sequence[Dot]], str] = legend_text,
) -> None:
    """Draw one legend for all panels: the look of each series in ``shown``, with ``text`` over all its dots."""
    from matplotlib.lines import Line2D

    dots = {name: [each for each in made.dots if each.series == name] for name in shown}
    lines = [Line2D([], [], label=text(dots[name]), **look) for name, look in shown.items() if dots[name]]
    if lines:
        canvas.legend(handles=lines, loc="outside upper center", ncols=2 if len(lines) % 3 else 3)


def plain_log(axis: Any) -> None:
    """Set the ticks of a logarithmic axis at 1, 2 and 5, written as plain numbers."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())
