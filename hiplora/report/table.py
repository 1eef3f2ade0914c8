"""A table: its cells, as CSV, Markdown and LaTeX."""

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
    "σ": r"$\sigma$", "τ": r"$\tau$", "λ": r"$\lambda$", "γ": r"$\gamma$", "`": "",
})  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One number in its column's unit, None where there is none yet: ``n`` of ``n_expected`` values are behind it.

    ``std`` is over these values, seeds or merges, the interval is at 95 %; ``runs`` are the records, ``marks`` theirs.
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


@dataclass(frozen=True, kw_only=True)
class Column:
    """``label`` names the unit, ``better`` is "up", "down" or None, ``decimals`` are printed.

    ``spread`` says what follows the value: "std" for means over seeds, "ci" (the interval) for those over merge
    instances of some ``sizes``, whose bootstrap has a ``level`` (seed or adapter), "own" for an interval that the
    notes of the table explain, or "none". ``point`` narrows the runs of a row, ``paper`` is the path of the paper's
    value: ``retain_pp/{method}``.
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
    """A table ready to be written."""

    name: str
    title: str
    caption: str
    columns: tuple[Column, ...]
    cells: tuple[Cell, ...]
    notes: tuple[str, ...] = ()
    commands: tuple[str, ...] = ()

    def cell(self, row: str, column: str) -> Cell | None:
        """The cell at a place, None where the table has none by design."""
        return next((cell for cell in self.cells if (cell.row, cell.column) == (row, column)), None)

    def write(self, directory: Path) -> list[Path]:
        """Write ``<name>.md``, ``.csv`` and ``.tex``, each atomically; returns their paths."""
        texts = {"md": markdown(self), "csv": to_csv(self.cells), "tex": latex(self)}
        paths = {directory / f"{self.name}.{ending}": text for ending, text in texts.items()}
        for path, text in paths.items():
            write_atomically(path, text.encode())
        return list(paths)


def to_csv(cells: Iterable[Cell]) -> str:
    """Long form; an absent number is an empty field, record ids are joined by semicolons."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(names := [each.name for each in fields(Cell)])
    for cell in cells:
        values = [";".join(v) if isinstance(v, tuple) else v for v in (getattr(cell, name) for name in names)]
        # Ten significant digits: beyond any measurement here, short of the last bits that differ between machines.
        writer.writerow(float(f"{value:.10g}") if isinstance(value, float) else value for value in values)
    return stream.getvalue()


def cell_text(cell: Cell | None, column: Column) -> str:
    """``41.2 ± 0.8 (3)``; ``41.2 ± 0.8 (2/3)`` where values are missing; ``–`` where all are; blank by design."""
    if cell is None or cell.value is None:
        return "" if cell is None else "–"
    words = [_number(cell.value, column) + cell.marks]
    if column.spread == "std" and cell.std is not None:
        words.append(f"± {cell.std:.{column.decimals}f}")
    if column.spread in ("ci", "own") and cell.ci_low is not None and cell.ci_high is not None:
        words.append(f"[{_number(cell.ci_low, column)}, {_number(cell.ci_high, column)}]")
    return " ".join([*words, f"({cell.n})" if cell.n >= cell.n_expected else f"({cell.n}/{cell.n_expected})"])


def _number(value: float, column: Column) -> str:
    text = f"{value:.{column.decimals}f}"
    if column.spread == "none" and value > 0 and float(text) == 0:  # a p is never zero
        return f"< {10**-column.decimals:.{column.decimals}f}"
    # Rounding must not leave a signed zero; a true minus sign keeps columns readable.
    return text.lstrip("-") if float(text) == 0 else text.replace("-", "−")


def grid(table: Table) -> list[list[str]]:
    """Header and rows as text; the paper's values follow the column they belong to, under their own scale."""
    rows = list(dict.fromkeys(cell.row for cell in table.cells))
    columns = [["", *rows]]
    for column in table.columns:
        cells = [table.cell(row, column.label) for row in rows]
        columns.append([column.label + ARROWS[column.better], *(cell_text(cell, column) for cell in cells)])
        paper = [cell.paper if cell is not None else None for cell in cells]
        if any(value is not None for value in paper):  # with the digits that the paper gives
            stated = ["" if value is None else f"{value:g}".replace("-", "−") for value in paper]
            columns.append([f"paper's {column.label}, Llama-3.1-8B", *stated])
    return [list(line) for line in zip(*columns, strict=True)]


def markdown(table: Table) -> str:
    """The table with its caption, notes and, where cells are short of runs, the commands that fill them."""
    rows = grid(table)
    header, *body = ("| " + " | ".join(text.replace("|", "\\|") for text in line) + " |" for line in rows)
    rule = "| --- |" + " ---: |" * (len(rows[0]) - 1)
    lines = [f"# {table.title}", "", table.caption, "", header, rule, *body, "", *(f"- {note}" for note in table.notes)]
    if table.commands:
        lines += ["", "Not every run is there yet. What is missing is made by", "", "```", *table.commands, "```"]
    return "\n".join(lines).rstrip() + "\n"


def latex(table: Table) -> str:
    """A booktabs table, with notes as its footnote text; with more rows than a page holds, a longtable."""
    header, *body = (" & ".join(text.translate(LATEX) for text in line) + r" \\" for line in grid(table))
    notes = [r"\par\smallskip\footnotesize " + note.translate(LATEX) for note in table.notes]
    named = rf"\caption{{{f'{table.title}. {table.caption}'.translate(LATEX)}}}", rf"\label{{tab:{table.name}}}"
    columns = f"{{l{'r' * header.count(' & ')}}}"
    if len(body) > PAGE:
        start = [rf"\begin{{longtable}}{columns}", "".join(named) + r"\\"]
        middle, end = [r"\midrule", r"\endhead"], [r"\end{longtable}", *notes]
    else:
        start = [r"\begin{table}", r"\centering", *named, rf"\begin{{tabular}}{columns}"]
        middle, end = [r"\midrule"], [r"\end{tabular}", *notes, r"\end{table}"]
    return "\n".join([*start, r"\toprule", header, *middle, *body, r"\bottomrule", *end, ""])
