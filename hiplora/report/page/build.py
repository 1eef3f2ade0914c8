"""The HTML page of a results folder: all data is gathered here and written by the templates beside this file."""

from __future__ import annotations

import re
import shlex
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from hiplora.errors import UserError
from hiplora.report.figure import places
from hiplora.report.figures import FIGURES
from hiplora.report.marks import MEANINGS
from hiplora.report.page import drawing
from hiplora.report.page.bare import SAME, SHORT, data_of
from hiplora.report.page.exhibits import Link, arguments, exhibits
from hiplora.report.page.groups import grouped
from hiplora.report.page.retained import OPTION, named
from hiplora.report.page.settings import Defaults, of_all_runs
from hiplora.report.page.summary import summary
from hiplora.report.page.views import SIZE, View, Views, anchor, summary_of
from hiplora.report.runs.fields import asked, shown
from hiplora.report.runs.prompts import Prompts, data_words
from hiplora.report.runs.shelf import FIRST, Shelf
from hiplora.report.tables import TABLES
from hiplora.stages.record import Record

EVERYTHING = (*TABLES, *FIGURES)
DEFAULT = "results/mini"  # the folder of the commands if none is typed
TEMPLATES = Path(__file__).with_name("templates")
ORDER = {"adapter": 0, "backbone": 1, "merged": 2}  # in the list of runs; other kinds come last
LATEST = 8  # adapters that the summary of one's own results shows
FEW = 4  # adapters in a scatter plot; those with fewer are folded away if there are others
PANEL = {"width": 300, "height": 240}


def page(folder: Path, words: Sequence[str], *, only: Sequence[str] = EVERYTHING, retain: Sequence[str] = ()) -> str:
    """The HTML page of ``results/<data>``; ``words`` are overrides of all its runs, ``only`` names tables and figures.

    Words that name a task of one's own serve only to read the text of its items. ``retain`` names what Retain counts in
    the list of runs; the four benchmarks if it is empty.

    Raises:
        UserError: there is no such folder, table or figure, no record was scored on what ``retain`` names, or the
            overrides do not compose.
    """
    if unknown := [name for name in only if name not in EVERYTHING]:
        raise UserError(f"{', '.join(unknown)} is not a table or figure; choose among {', '.join(EVERYTHING)}.")
    shelf = Shelf(folder)
    settings = data_words(folder, of_all_runs(words))
    runs = sorted(grouped(shelf), key=lambda run: (ORDER.get(run.kind, len(ORDER)), run.head.started))
    counts = named(retain, shelf.records)
    maker = Views(shelf, Prompts(data_words(folder, words)), Defaults(settings), retain=counts)
    views = [maker.of(run) for run in runs]
    links = {(r.id, r.where): (f"#{anchor(r)}", r.name) for r in shelf.records}

    def find(id: str, where: str) -> Link | None:
        return links.get((id, where))

    shown_exhibits = list(exhibits(only, settings, find))
    methods = _methods(views)
    panels = list(_panels(views, methods))
    backbones = list(dict.fromkeys(view.backbone for view in views if view.backbone))
    shown_at = [] if str(folder) == DEFAULT else ["--results", str(folder)]
    counting = [OPTION, ",".join(retain)] if retain else []
    return render(
        folder=folder,
        first=" ".join(filter(None, [FIRST, shlex.join(settings)])),
        args=arguments(settings),
        report_args=arguments([*shown_at, *counting, *words]),
        retain=list(retain),
        results=f" {shlex.join(shown_at)}" if shown_at else "",
        reading=f" {shlex.join([*shown_at, *words])}" if shown_at or words else "",
        summary=summary(shown_exhibits, runs, backbones),
        hidden=[
            *(["backbone"] if len(backbones) < 2 else []),
            *(["where"] if len({view.run.head.where for view in views}) < 2 else []),
        ],
        tables=[each for each in shown_exhibits if each.name in TABLES],
        figures=[each for each in shown_exhibits if each.name in FIGURES],
        views=views,
        methods=methods,
        panels=panels,
        latest=_latest(views),
        main_panels=[each for each in panels if len(each.marks) >= FEW] or panels,
        marks={mark: text for mark, text in MEANINGS.items() if any(mark in view.marks for view in views)},
        broken=shelf.broken,
    )


def render(**values: Any) -> str:
    """The page's template, filled with values."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"value": shown, "number": _number, "headlines": summary_of, "padded": _padded}
    environment.globals |= {"looks": drawing.LOOKS, "panel": PANEL, "curve": SIZE}
    return environment.get_template("page.html").render(**values)


def _latest(views: Sequence[View]) -> list[View]:
    """The adapters made last of which it is known what they learned or forgot, the newest first."""
    known = [view for view in views if view.facts is not None and view.facts.retain_text is not None]
    return sorted(known, key=lambda view: view.run.head.started, reverse=True)[:LATEST]


def _padded(name: str) -> str:
    """A name that sorts by the numbers in it: s42 before s100."""
    return re.sub(r"\d+", lambda digits: digits[0].zfill(8), name)


def _number(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:z.{digits}f}".replace("-", "−")  # z: no sign before a rounded zero


def _methods(views: Sequence[View]) -> dict[str, int]:
    """The methods that get their own look, those with the most adapters, with the look's place."""
    counts = Counter(view.method for view in views if view.run.kind == "adapter" and view.method)
    return places([name for name, _ in counts.most_common(len(drawing.LOOKS))])


def _panels(views: Sequence[View], methods: Mapping[str, int]) -> Iterator[drawing.Scatter]:
    """Scatter plots of learning against forgetting, one panel per task, evaluation and backbone."""
    found: dict[tuple[str, str, str, str], list[drawing.Mark]] = {}
    scored: dict[tuple[str, str, str, str], Record] = {}
    for view in views:
        of = view.facts
        if of is None or of.learned is None or of.retain_text is None:
            continue
        series = methods.get(view.method) if view.method else None
        words = f"{view.title}: learned {_number(of.learned, 3)}, forgot {_number(of.retain_text, 3)} nats per token"
        words += f" ({view.words})" if view.words else ""
        mark = drawing.Mark(of.learned, of.retain_text, series, f"#{view.anchor}", words)
        key = (of.on, view.task or str(of.task), view.backbone, of.plot)
        found.setdefault(key, []).append(mark)
        if view.run.best is not None:
            scored.setdefault(key, view.run.best)
    several = len({backbone for _, _, backbone, _ in found}) > 1
    for key, marks in sorted(found.items()):
        on, task, backbone, _ = key
        title = f"{task}, scored on {on}" if on != "frontier" else f"{task}, frontier"
        alike = [scored[other] for other in scored if other[:3] == key[:3]]
        parts = [title, *([backbone] if several else []), *_apart(scored[key], alike, task)]
        yield drawing.scatter(", ".join(parts), marks, **PANEL)


def _apart(record: Record, alike: Sequence[Record], task: str) -> list[str]:
    """What distinguishes a record from others whose plots would have the same title: device, settings, data.

    A file that only some of them read is named where nothing else tells them apart: other splits are other files.
    """
    words = [record.where] if len({each.where for each in alike}) > 1 else []
    every, data = [asked(each) for each in alike], [data_of(each, task) for each in alike]
    for name, value in asked(record).items():
        of_plot = name in SAME or name.startswith(("model.", "evaluation.", f"benchmarks.{task}."))
        if of_plot and len({each.get(name) for each in every}) > 1:
            last = name.rpartition(".")[2]
            words.append(f"no {last}" if value is None else f"{last}={shown(value)}")
    files = {name: {each.get(name) for each in data} for name in data_of(record, task)}
    least = {name: len(versions - {None} if words else versions) for name, versions in files.items()}
    return words + [f"{name} {file[:SHORT]}" for name, file in data_of(record, task).items() if least[name] > 1]
