"""One file per table; :data:`TABLES` is the list. Each has ``build(evidence) -> Table``, a pure function."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

from hiplora.errors import UserError
from hiplora.report.frame import Evidence
from hiplora.report.table import Table

TABLES = ("table1", "table2", "mergefail", "table11", "table12", "table13", "table14", "differences")


def builder(name: str) -> Callable[[Evidence], Table]:
    """The function that makes a table from its evidence.

    Raises:
        UserError: there is no such table.
    """
    if name not in TABLES:
        raise UserError(f"There is no table {name!r}; choose one of {', '.join(TABLES)}.")
    return import_module(f"hiplora.report.tables.{name}").build
