"""Table 12: HiP-LoRA beside AdaLoRA and DoRA, on the four benchmarks and in what they forget."""

from __future__ import annotations

from hiplora.report.cells import Table
from hiplora.report.evidence import Evidence
from hiplora.report.tables.table1 import RETAIN, single_task_table


def build(evidence: Evidence) -> Table:
    """Table 12 from the records of pipeline ``single``; measured as Table 1."""
    return single_task_table(evidence, number="12", retain=tuple(RETAIN))
