"""A table as Markdown and LaTeX."""

from __future__ import annotations

from hiplora.report.cells import Cell, Column, Table

ABSENT = "–"
PAGE = 40  # rows that fit on one page of LaTeX
ARROWS = {"up": " ↑", "down": " ↓", None: ""}
LATEX = {
    "\\": r"\textbackslash{}",
    **{character: f"\\{character}" for character in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "|": r"\textbar{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    "–": "--",
    "−": "$-$",
    "↑": r"$\uparrow$",
    "↓": r"$\downarrow$",
    "Δ": r"$\Delta$",
    "φ": r"$\varphi$",
    "σ": r"$\sigma$",
    "τ": r"$\tau$",
    "λ": r"$\lambda$",
    "γ": r"$\gamma$",
    "×": r"$\times$",
    "·": r"$\cdot$",
    "≥": r"$\geq$",
    "≤": r"$\leq$",
}


def cell_text(cell: Cell | None, column: Column) -> str:
    """``41.2 ± 0.8 (3)``; ``41.2 ± 0.8 (2/3)`` where values are missing; ``–`` where all are; blank by design."""
    if cell is None:
        return ""
    if cell.value is None:
        return ABSENT
    count = f"({cell.n})" if cell.n >= cell.n_expected else f"({cell.n}/{cell.n_expected})"
    return " ".join(part for part in (_number(cell.value, column), _spread(cell, column), count) if part)


def _spread(cell: Cell, column: Column) -> str:
    if column.spread == "std" and cell.std is not None:
        return f"± {cell.std:.{column.decimals}f}"
    if column.spread != "ci" or cell.ci_low is None or cell.ci_high is None:
        return ""
    return f"[{_number(cell.ci_low, column)}, {_number(cell.ci_high, column)}]"


def _number(value: float, column: Column) -> str:
    text = f"{value:.{column.decimals}f}"
    # Rounding must not leave a signed zero; a true minus sign keeps columns readable.
    return text.lstrip("-") if float(text) == 0 else text.replace("-", "−")


def _stated(value: float) -> str:
    """The paper's value with the digits that the paper gives."""
    return f"{value:g}".replace("-", "−")


def grid(table: Table) -> tuple[list[str], list[list[str]]]:
    """Header and body as text; the paper's values follow the column they belong to, under their own scale."""
    header, body = [""], [[row] for row in table.rows]
    for column in table.columns:
        cells = [table.cell(row, column.label) for row in table.rows]
        header.append(column.label + ARROWS[column.better])
        for line, cell in zip(body, cells, strict=True):
            line.append(cell_text(cell, column))
        if any(cell is not None and cell.paper is not None for cell in cells):
            header.append(f"paper's {column.label}, {table.paper_scale}")
            for line, cell in zip(body, cells, strict=True):
                line.append(_stated(cell.paper) if cell and cell.paper is not None else "")
    return header, body


def markdown(table: Table) -> str:
    """The table with its caption, notes and, where cells are short of runs, the commands that fill them."""
    header, body = grid(table)
    lines = [f"# {table.title}", "", table.caption, ""]
    lines += [_row(header), _row(["---", *["---:"] * (len(header) - 1)]), *(_row(line) for line in body), ""]
    lines += [f"- {note}" for note in table.notes]
    if table.commands:
        lines += ["", "Not every run is there yet. What is missing is made by", "", "```", *table.commands, "```"]
    return "\n".join(lines).rstrip() + "\n"


def _row(cells: list[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def latex(table: Table) -> str:
    """A booktabs table; notes become its footnote text. Needs ``\\usepackage{booktabs}``, a long one longtable too."""
    header, body = grid(table)
    rows = [" & ".join(escape(cell) for cell in line) + r" \\" for line in [header, *body]]
    notes = [r"\par\smallskip\footnotesize " + escape(note) for note in table.notes]
    if len(body) > PAGE:
        return _longtable(table, rows, notes)
    return "\n".join(
        [
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{escape(table.title)}. {escape(table.caption)}}}",
            rf"\label{{tab:{table.name}}}",
            rf"\begin{{tabular}}{{l{'r' * (len(header) - 1)}}}",
            r"\toprule",
            rows[0],
            r"\midrule",
            *rows[1:],
            r"\bottomrule",
            r"\end{tabular}",
            *notes,
            r"\end{table}",
            "",
        ]
    )


def _longtable(table: Table, rows: list[str], notes: list[str]) -> str:
    """More rows than a page holds: a table that breaks between pages and repeats its header."""
    columns = rows[0].count(" & ")
    return "\n".join(
        [
            rf"\begin{{longtable}}{{l{'r' * columns}}}",
            rf"\caption{{{escape(table.title)}. {escape(table.caption)}}}\label{{tab:{table.name}}}\\",
            r"\toprule",
            rows[0],
            r"\midrule",
            r"\endhead",
            *rows[1:],
            r"\bottomrule",
            r"\end{longtable}",
            *notes,
            "",
        ]
    )


def escape(text: str) -> str:
    """Text for LaTeX, Greek letters and signs included; backquotes of Markdown are dropped."""
    return "".join(LATEX.get(character, character) for character in text.replace("`", ""))
