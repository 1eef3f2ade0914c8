"""Tables and figures for the page: every number links to the runs behind it."""

from __future__ import annotations

import base64
import shlex
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from importlib import import_module

from hiplora.errors import UserError
from hiplora.report.evidence import Evidence
from hiplora.report.experiment import load
from hiplora.report.figure import Dot, Figure, svg
from hiplora.report.figures import FIGURES
from hiplora.report.find import gather, identify
from hiplora.report.table import Block, Field, Table, blocks

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
            command = f"make {name}{arguments(settings)}"
            evidence = gather(experiment, slots, settings=settings, command=command)
            yield exhibit(name, evidence, find)
        except UserError as error:
            yield Exhibit(name, experiment.title, 0, len(experiment.runs), problem=str(error))


def arguments(words: Sequence[str]) -> str:
    """Words as they are typed behind a target of make; empty without any."""
    return f" ARGS={shlex.quote(shlex.join(words).replace('$', '$$'))}" if words else ""


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
        shown.sections = [_section(block, links) for block in blocks(made)]
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


def _section(block: Block, links: Links) -> Section:
    rows = [(row, [_shown(each, links) for each in line]) for row, line in block.rows]
    worded = [any(line[number].words for _, line in rows) for number in range(len(block.header))]
    header = [
        Shown("the paper’s, Llama-3.1-8B" if head.paper else head.text, paper=head.paper, words=words)
        for head, words in zip(block.header, worded, strict=True)
    ]
    return Section(block.heading, header, rows)


def _shown(each: Field, links: Links) -> Shown:
    cell = each.cell
    href = links.of(cell.runs) if cell is not None and (cell.value is not None or cell.words) else None
    return Shown(each.text, href, each.paper, words=cell is not None and bool(cell.words))
