"""A table: its cells, written as CSV, Markdown and LaTeX."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from hiplora.disk import write_atomically

PAGE = 40  # rows that fit on one page of LaTeX
ARROWS = {"up": " ↑", "down": " ↓", None: ""}
LATEX = str.maketrans({
    "\\": r"\textbackslash{}", "^": r"\textasciicircum{}", **{character: f"\\{character}" for character in "&%$#_{}"},
    "~": r"\textasciitilde{}", "|": r"\textbar{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "±": r"$\pm$", "–": "--", "−": "$-$", "↑": r"$\uparrow$", "↓": r"$\downarrow$", "×": r"$\times$", "·": r"$\cdot$",
    "≥": r"$\geq$", "≤": r"$\leq$", "†": r"$\dagger$", "‡": r"$\ddagger$", "Δ": r"$\Delta$", "φ": r"$\varphi$",
    "§": r"\S{}", "σ": r"$\sigma$", "τ": r"$\tau$", "λ": r"$\lambda$", "γ": r"$\gamma$", "`": "",
    "ε": r"$\varepsilon$", "ρ": r"$\rho$", "ᵀ": r"$^\top$", "²": "$^2$", "‖": r"$\Vert$", "°": r"$^\circ$",
    "→": r"$\to$", "…": r"\ldots{}", "’": "'",
})  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One number in its column's unit, from ``n`` of ``n_expected`` values; None if there is none yet.

    ``std`` is over these values, seeds or merges; the interval is at 95 %; ``runs`` are ids of the records behind it,
    with their ``marks``. ``words``, if any, are printed instead of the number.
    """

    row: str
    column: str
    value: float | None
    std: float | None = None
    ci_low: float | None = None
    ci_high: float | None = None
    n: int
    n_expected: int
    paper: float | None = None
    marks: str = ""
    runs: tuple[str, ...] = ()
    words: str = ""


@dataclass(frozen=True, kw_only=True)
class Column:
    """A column. ``label`` includes the unit, ``better`` is "up", "down" or None, ``decimals`` are printed.

    ``spread`` says what follows the value: "std" for means over seeds, "ci" (the interval) for means over merge
    instances of some ``sizes``, or "none". ``level`` is that of the bootstrap (seed or adapter); "t" is an interval
    that the table's notes explain. ``point`` restricts the runs of a row; ``paper`` is the path of the paper's value,
    such as ``retain_pp/{method}``.
    """

    label: str
    decimals: int = 1
    better: str | None = None
    spread: str = "std"
    measure: str = ""
    sizes: Sequence[int] = (2, 3, 4)
    level: str = "seed"
    point: Mapping[str, str] = field(default_factory=dict)
    paper: str = ""


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table ready to be written. ``sections`` are headings with their rows; without any, all rows are one block."""

    name: str
    title: str
    caption: str
    columns: tuple[Column, ...]
    cells: tuple[Cell, ...]
    notes: tuple[str, ...] = ()
    commands: tuple[str, ...] = ()
    sections: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def cell(self, row: str, column: str) -> Cell | None:
        """The cell of a row and column; None if the table has none by design."""
        return next((cell for cell in self.cells if (cell.row, cell.column) == (row, column)), None)

    def text(self) -> str:
        """The table as Markdown."""
        return markdown(self)

    def write(self, directory: Path) -> list[Path]:
        """Write ``<name>.md``, ``.csv`` and ``.tex``, each atomically; returns their paths."""
        texts = {"md": markdown(self), "csv": to_csv(self.cells), "tex": latex(self)}
        paths = {directory / f"{self.name}.{ending}": text for ending, text in texts.items()}
        for path, text in paths.items():
            write_atomically(path, text.encode())
        return list(paths)


def to_csv(cells: Iterable[Cell]) -> str:
    """The cells as CSV in long form; a missing number is an empty field, record ids are joined by semicolons."""
    cells = list(cells)
    # Ten significant digits: more than any measurement here, without the last bits, which differ between machines.
    return rows_as_csv(cells, Cell, hidden=set() if any(cell.words for cell in cells) else {"words"}, digits=10)


def rows_as_csv(rows: Iterable[Any], kind: type, *, hidden: set[str], digits: int) -> str:
    """Objects of a dataclass as CSV, one row each, without the hidden fields; numbers have significant digits."""
    stream, names = io.StringIO(), [each.name for each in fields(kind) if each.name not in hidden]
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(names)
    for row in rows:
        values = [";".join(v) if isinstance(v, tuple) else v for v in (getattr(row, name) for name in names)]
        writer.writerow(float(f"{v:.{digits}g}") if isinstance(v, float) else v for v in values)
    return stream.getvalue()


def cell_text(cell: Cell | None, column: Column) -> str:
    """A cell as text: ``41.2 ± 0.8 (3)``, ``41.2 ± 0.8 (2/3)`` if values are missing, ``–`` if all are; else blank."""
    if cell is not None and cell.words:
        return cell.words
    if cell is None or cell.value is None:
        return "" if cell is None else "–"
    words = [number_text(cell.value, column) + cell.marks]
    if column.spread == "std" and cell.std is not None:
        words.append(f"± {cell.std:.{column.decimals}f}")
    if column.spread == "ci" and cell.ci_low is not None and cell.ci_high is not None:
        words.append(f"[{number_text(cell.ci_low, column)}, {number_text(cell.ci_high, column)}]")
    return " ".join([*words, f"({cell.n})" if cell.n >= cell.n_expected else f"({cell.n}/{cell.n_expected})"])


def number_text(value: float, column: Column) -> str:
    """A number with its column's decimals and a true minus sign; a small p as ``< 0.0001``."""
    text = f"{value:.{column.decimals}f}"
    if column.spread == "none" and value > 0 and float(text) == 0:  # a p is never zero
        return f"< {10**-column.decimals:.{column.decimals}f}"
    # No signed zero after rounding; a true minus sign keeps columns readable.
    return text.lstrip("-") if float(text) == 0 else text.replace("-", "−")


@dataclass(frozen=True)
class Field:
    """A text of a printed table: of a ``cell`` if there is one, of a header, or one of the ``paper``'s values."""

    text: str
    cell: Cell | None = None
    paper: bool = False


@dataclass(frozen=True)
class Block:
    """A part of a printed table with its own header; ``heading`` is empty if the table has one part."""

    heading: str
    header: Sequence[Field]
    rows: Sequence[tuple[str, Sequence[Field]]]

    def texts(self) -> list[list[str]]:
        """Header and rows as text."""
        return [["", *(each.text for each in self.header)], *([r, *(each.text for each in of)] for r, of in self.rows)]


def blocks(table: Table) -> Iterator[Block]:
    """The parts of a table; a section shows only columns that it has cells in.

    The paper's values follow their column, in a column that names the paper's backbone.
    """
    cells = {(cell.row, cell.column): cell for cell in table.cells}
    for heading, rows in (table.sections or {"": list(dict.fromkeys(cell.row for cell in table.cells))}).items():
        columns: list[list[Field]] = []
        for column in table.columns:
            found = [cells.get((row, column.label)) for row in rows]
            if any(found) or not heading:
                texts = (Field(cell_text(cell, column), cell) for cell in found)
                columns.append([Field(column.label + ARROWS[column.better]), *texts])
            if any(cell is not None and cell.paper is not None for cell in found):
                columns.append([Field(f"paper's {column.label}, Llama-3.1-8B", paper=True), *map(_paper, found)])
        header, *lines = zip(*columns, strict=True)
        yield Block(heading, header, list(zip(rows, lines, strict=True)))


def _paper(cell: Cell | None) -> Field:
    """The paper's value with the paper's digits; blank if it states none."""
    value = None if cell is None else cell.paper
    return Field("" if value is None else f"{value:g}".replace("-", "−"), paper=True)


def markdown(table: Table) -> str:
    """The table in Markdown with its caption and notes and, if runs are missing, the commands that make them."""
    lines = [f"# {table.title}", "", table.caption, ""]
    for block in blocks(table):
        texts = block.texts()
        header, *body = ("| " + " | ".join(text.replace("|", "\\|") for text in line) + " |" for line in texts)
        rule = "| --- |" + " ---: |" * len(block.header)
        lines += [*([f"## {block.heading}", ""] if block.heading else []), header, rule, *body, ""]
    lines += [f"- {note}" for note in table.notes]
    if table.commands:
        lines += ["", "Some runs are missing. To make them:", "", "```", *table.commands, "```"]
    return "\n".join(lines).rstrip() + "\n"


def latex(table: Table) -> str:
    """A booktabs table with its notes as footnote text; a longtable if it has more rows than a page.

    Sections are separate tabulars under one caption; in a longtable, which has one header, headings between rows.
    """
    notes = [r"\par\smallskip\footnotesize " + note.translate(LATEX) for note in table.notes]
    named = rf"\caption{{{f'{table.title}. {table.caption}'.translate(LATEX)}}}", rf"\label{{tab:{table.name}}}"
    parts = [(block.heading, *_latex_rows(block.texts())) for block in blocks(table)]
    if sum(len(rows) for *_, rows in parts) > PAGE and len({(columns, rows[0]) for _, columns, rows in parts}) == 1:
        return _joined(_long(named, parts), r"\end{longtable}", *notes)
    lines = [r"\begin{table}", r"\centering", *named]
    for heading, columns, (header, *body) in parts:
        lines += [rf"\par\medskip {heading.translate(LATEX)}\par"] if heading else []
        lines += [
            rf"\begin{{tabular}}{columns}",
            r"\toprule",
            header,
            r"\midrule",
            *body,
            r"\bottomrule",
            r"\end{tabular}",
        ]
    return _joined(lines, *notes, r"\end{table}")


def _long(named: Sequence[str], parts: Sequence[tuple[str, str, list[str]]]) -> list[str]:
    """The lines of a longtable without its end; every part has the same columns and header."""
    _, columns, (header, *_) = parts[0]
    lines = [rf"\begin{{longtable}}{columns}", "".join(named) + r"\\", r"\toprule", header, r"\midrule", r"\endhead"]
    for heading, _, (_, *body) in parts:
        width = header.count(" & ") + 1
        lines += [rf"\multicolumn{{{width}}}{{l}}{{{heading.translate(LATEX)}}} \\"] if heading else []
        lines += body
    return [*lines, r"\bottomrule"]


def _latex_rows(rows: Sequence[Sequence[str]]) -> tuple[str, list[str]]:
    """The column alignment, and every row in LaTeX."""
    return f"{{l{'r' * (len(rows[0]) - 1)}}}", [
        " & ".join(text.translate(LATEX) for text in row) + r" \\" for row in rows
    ]


def _joined(lines: Sequence[str], *more: str) -> str:
    return "\n".join([*lines, *more, ""])
