"""Cells of a table, and its CSV: one line per cell, from which Markdown and LaTeX are made."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields

from hiplora.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One number: ``n`` of ``n_expected`` values stand behind it, from the records ``runs``.

    ``value`` is None where there is nothing yet; ``std`` is over the n values, seeds or merges; the interval is at
    95 %. All in the unit that the column names.
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
    runs: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Column:
    """``label`` names the unit, ``better`` is "up", "down" or None.

    ``decimals`` are printed; ``spread`` says what follows the value: "std", "ci" (the interval) or "none".
    """

    label: str
    decimals: int = 1
    better: str | None = None
    spread: str = "std"


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
    paper_scale: str = "Llama-3.1-8B"

    @property
    def rows(self) -> list[str]:
        """Row labels in order of appearance."""
        return list(dict.fromkeys(cell.row for cell in self.cells))

    def cell(self, row: str, column: str) -> Cell | None:
        """The cell at a place, None where the table has none by design."""
        return next((cell for cell in self.cells if (cell.row, cell.column) == (row, column)), None)

    @property
    def complete(self) -> bool:
        """Whether every cell has all its values."""
        return all(cell.n >= cell.n_expected for cell in self.cells)


HEADER = tuple(field.name for field in fields(Cell))


def to_csv(cells: Iterable[Cell]) -> str:
    """Long form; an absent number is an empty field, record ids are joined by semicolons."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(HEADER)
    for cell in cells:
        values = [getattr(cell, name) for name in HEADER[:-1]]
        writer.writerow([*(_number(value) for value in values), ";".join(cell.runs)])
    return stream.getvalue()


def from_csv(text: str) -> tuple[Cell, ...]:
    """Cells from the CSV of :func:`to_csv`.

    Raises:
        UserError: the header is not that of a table of ours.
    """
    rows = list(csv.reader(io.StringIO(text)))
    if not rows or tuple(rows[0]) != HEADER:
        raise UserError(f"This is no CSV of a table: its first line must be {','.join(HEADER)}.")
    return tuple(_cell(row) for row in rows[1:])


def _cell(row: Sequence[str]) -> Cell:
    value, std, low, high, paper = (float(text) if text else None for text in (*row[2:6], row[8]))
    return Cell(
        row=row[0],
        column=row[1],
        value=value,
        std=std,
        ci_low=low,
        ci_high=high,
        n=int(row[6]),
        n_expected=int(row[7]),
        paper=paper,
        runs=tuple(row[9].split(";")) if row[9] else (),
    )


def _number(value: object) -> object:
    # Ten significant digits: beyond any measurement here, short of the last bits that differ between machines.
    return "" if value is None else float(f"{value:.10g}") if isinstance(value, float) else value
