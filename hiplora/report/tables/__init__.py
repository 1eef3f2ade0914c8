"""One file per table; :data:`TABLES` is the list. Each has ``build(evidence) -> Table``, a pure function."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

from hiplora.errors import UserError
from hiplora.report.cells import Table
from hiplora.report.evidence import Evidence

TABLES: dict[str, str] = {
    "table1": "hiplora.report.tables.table1:build",
    "table2": "hiplora.report.tables.table2:build",
    "mergefail": "hiplora.report.tables.mergefail:build",
    "table11": "hiplora.report.tables.table11:build",
    "table12": "hiplora.report.tables.table12:build",
    "table13": "hiplora.report.tables.table13:build",
    "table14": "hiplora.report.tables.table14:build",
    "differences": "hiplora.report.tables.differences:build",
}


def builder(name: str) -> Callable[[Evidence], Table]:
    """The function that makes a table from its evidence.

    Raises:
        UserError: there is no such table.
    """
    if name not in TABLES:
        raise UserError(f"There is no table {name!r}; choose one of {', '.join(TABLES)}.")
    module, function = TABLES[name].split(":")
    return getattr(import_module(module), function)
