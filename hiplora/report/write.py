"""Put a table under ``results/<data>/tables``."""

from __future__ import annotations

from pathlib import Path

from hiplora.disk import write_atomically
from hiplora.report.cells import Table, to_csv
from hiplora.report.render import latex, markdown


def write(table: Table, directory: Path) -> list[Path]:
    """Write ``<name>.md``, ``.csv`` and ``.tex``, each atomically; returns their paths."""
    texts = {"md": markdown(table), "csv": to_csv(table.cells), "tex": latex(table)}
    paths = []
    for ending, text in texts.items():
        path = directory / f"{table.name}.{ending}"
        write_atomically(path, text.encode())
        paths.append(path)
    return paths
