"""A table: its cells, written as CSV, Markdown and LaTeX."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path

from hiplora.disk import write_atomically

PAGE = 40  # rows that fit on one page of LaTeX
ARROWS = {"up": " ↑", "down": " ↓", None: ""}
LATEX = str.maketrans({
    "\\": r"\textbackslash{}", "^": r"\textasciicircum{}", **{character: f"\\{character}" for character in "&%$#_{}"},
    "~": r"\textasciitilde{}", "|": r"\textbar{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "±": r"$\pm$", "–": "--", "−": "$-$", "↑": r"$\uparrow$", "↓": r"$\downarrow$", "×": r"$\times$", "·": r"$\cdot$",
    "≥": r"$\geq$", "≤": r"$\leq$", "†": r"$\dagger$", "‡": r"$\ddagger$", "Δ": r"$\Delta$", "φ": r"$\varphi$",
    "§": r"\S{}", "σ": r"$\sigma$", "τ": r"$\tau$", "λ": r"$\lambda$", "γ": r"$\gamma$", "`": "",
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
    hidden = set() if any(cell.words for cell in cells) else {"words"}
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(names := [each.name for each in fields(Cell) if each.name not in hidden])
    for cell in cells:
        values = [";".join(v) if isinstance(v, tuple) else v for v in (getattr(cell, name) for name in names)]
        # Ten significant digits: more than any measurement here, without the last bits, which differ between machines.
        writer.writerow(float(f"{value:.10g}") if isinstance(value, float) else value for value in values)
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


def grids(table: Table) -> list[tuple[str, list[list[str]]]]:
    """Each section's heading, with its header and rows as text; a section shows only columns that it has cells in."""
    if not table.sections:
        return [("", _grid(table, list(dict.fromkeys(cell.row for cell in table.cells)), table.columns))]
    found = []
    for heading, rows in table.sections.items():
        there = {cell.column for cell in table.cells if cell.row in rows}
        columns = [column for column in table.columns if column.label in there]
        found.append((heading, _grid(table, rows, columns)))
    return found


def _grid(table: Table, rows: Sequence[str], given: Sequence[Column]) -> list[list[str]]:
    """Header and rows as text; the paper's values follow their column, in a column that names the paper's backbone."""
    columns = [["", *rows]]
    for column in given:
        cells = [table.cell(row, column.label) for row in rows]
        columns.append([column.label + ARROWS[column.better], *(cell_text(cell, column) for cell in cells)])
        paper = [cell.paper if cell is not None else None for cell in cells]
        if any(value is not None for value in paper):  # printed with the paper's digits
            stated = ["" if value is None else f"{value:g}".replace("-", "−") for value in paper]
            columns.append([f"paper's {column.label}, Llama-3.1-8B", *stated])
    return [list(line) for line in zip(*columns, strict=True)]


def markdown(table: Table) -> str:
    """The table in Markdown with its caption and notes and, if runs are missing, the commands that make them."""
    lines = [f"# {table.title}", "", table.caption, ""]
    for heading, rows in grids(table):
        header, *body = ("| " + " | ".join(text.replace("|", "\\|") for text in line) + " |" for line in rows)
        rule = "| --- |" + " ---: |" * (len(rows[0]) - 1)
        lines += [*([f"## {heading}", ""] if heading else []), header, rule, *body, ""]
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
    parts = [(heading, *_latex_rows(rows)) for heading, rows in grids(table)]
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
