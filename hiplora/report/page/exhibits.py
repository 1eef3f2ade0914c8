"""Tables and figures for the page: every number links to the runs behind it."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from importlib import import_module

from hiplora.errors import UserError
from hiplora.report.experiment import load
from hiplora.report.figure import Dot, Figure, svg
from hiplora.report.figures import FIGURES
from hiplora.report.find import gather, identify
from hiplora.report.frame import Evidence
from hiplora.report.table import ARROWS, Cell, Column, Table, cell_text

Link = tuple[str, str]  # target, text
Find = Callable[[str, str], Link | None]  # the link of a record by its id and ``where``


@dataclass(frozen=True)
class Shown:
    """A cell: its text, and its link if there is a run behind it."""

    text: str
    href: str | None = None
    paper: bool = False
    words: bool = False  # whether it holds words instead of a number


@dataclass(frozen=True)
class Section:
    """A part of a table with its own header."""

    heading: str
    header: Sequence[Shown]
    rows: Sequence[tuple[str, Sequence[Shown]]]


@dataclass
class Exhibit:
    """A table or figure, or the ``problem`` for which there is none.

    ``there`` of ``wanted`` runs exist; ``behind`` holds the lists of runs that numbers with several runs link to.
    """

    name: str
    title: str
    there: int
    wanted: int
    made: Table | Figure | None = None
    problem: str = ""
    picture: str = ""
    sections: list[Section] = field(default_factory=list)
    width: int = 0  # largest width of the picture, in pixels
    points: Sequence[tuple[Dot, str | None]] = ()
    behind: list[tuple[str, list[Link]]] = field(default_factory=list)

    @property
    def filled(self) -> bool:
        """Whether it has any number or point."""
        if isinstance(self.made, Figure):
            return bool(self.made.dots)
        return self.made is not None and any(cell.value is not None for cell in self.made.cells)


def exhibits(names: Sequence[str], settings: Sequence[str], find: Find) -> Iterator[Exhibit]:
    """The tables and figures with these names; one that cannot be made has a ``problem``."""
    for name in names:
        experiment = load(name)
        try:
            slots = identify(experiment, settings)
            evidence = gather(experiment, slots, settings=settings, command=f"make {name}")
            yield exhibit(name, evidence, find)
        except UserError as error:
            yield Exhibit(name, experiment.title, 0, len(experiment.runs), problem=str(error))


def exhibit(name: str, evidence: Evidence, find: Find) -> Exhibit:
    """One table or figure from its evidence."""
    made = import_module(f"hiplora.report.{'figures' if name in FIGURES else 'tables'}.{name}").build(evidence)
    there = sum(slot.there for slot in evidence.slots)
    shown = Exhibit(name, made.title, there, len(evidence.slots), made)
    links = Links(name, evidence.where, find)
    if isinstance(made, Figure):
        shown.points = [(dot, links.of(dot.runs)) for dot in made.dots]
        shown.width = round(160 * made.size[0])
        shown.picture = "data:image/svg+xml;base64," + base64.b64encode(svg(made)).decode() if made.dots else ""
    else:
        shown.sections = list(_sections(made, links))
    shown.behind = links.lists()
    return shown


class Links:
    """The links of a table or figure: directly to a single run, otherwise to a list of runs below it."""

    def __init__(self, name: str, where: str, find: Find) -> None:
        self._name, self._where, self._find = name, where, find
        self._lists: dict[tuple[Link, ...], str] = {}

    def of(self, runs: Sequence[str]) -> str | None:
        """The target of a number's link; None if none of its runs is on the page."""
        found = tuple(link for id in runs if (link := self._find(id, self._where)) is not None)
        if not found:
            return None
        if len(found) == 1:
            return found[0][0]
        return "#" + self._lists.setdefault(found, f"{self._name}-runs-{len(self._lists) + 1}")

    def lists(self) -> list[tuple[str, list[Link]]]:
        """Every list of runs with its anchor."""
        return [(anchor, list(links)) for links, anchor in self._lists.items()]


def _sections(table: Table, links: Links) -> Iterator[Section]:
    cells = {(cell.row, cell.column): cell for cell in table.cells}
    parts = table.sections or {"": list(dict.fromkeys(cell.row for cell in table.cells))}
    for heading, rows in parts.items():
        of = [c for c in table.columns if not heading or any((row, c.label) in cells for row in rows)]
        paper = {c.label for c in of if any(_paper(cells.get((row, c.label))) for row in rows)}
        body = [
            (row, [s for c in of for s in _cells(cells.get((row, c.label)), c, c.label in paper, links)])
            for row in rows
        ]
        worded = [any(line[number].words for _, line in body) for number in range(len(body[0][1]))]
        heads = [shown for column in of for shown in _header(column, column.label in paper)]
        header = [replace(head, words=words) for head, words in zip(heads, worded, strict=True)]
        yield Section(heading, header, body)


def _header(column: Column, paper: bool) -> Iterator[Shown]:
    yield Shown(column.label + ARROWS[column.better])
    if paper:
        yield Shown("the paper’s, Llama-3.1-8B", paper=True)


def _cells(cell: Cell | None, column: Column, paper: bool, links: Links) -> Iterator[Shown]:
    """A cell, and the paper's value beside it."""
    href = links.of(cell.runs) if cell is not None and (cell.value is not None or cell.words) else None
    yield Shown(cell_text(cell, column), href, words=cell is not None and bool(cell.words))
    if paper:
        yield Shown(f"{cell.paper:g}".replace("-", "−") if cell is not None and _paper(cell) else "", paper=True)


def _paper(cell: Cell | None) -> bool:
    return cell is not None and cell.paper is not None
