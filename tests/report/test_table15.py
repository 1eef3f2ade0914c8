"""Table 15 from drifts whose means are known."""

from __future__ import annotations

import pytest

from hiplora.report.tables import table15
from tests.report.evidence import fixture_evidence

OVERLAP, ANGLE, *_ = (column.label for column in table15.COLUMNS.values())


def test_means_over_matrices_and_tasks_with_the_random_update_beside():
    table = table15.build(fixture_evidence("table15"))
    # Overlaps 0.96, 0.95, 0.94 of one task, 0.02 lower of the other.
    assert table.cell("LoRA", OVERLAP).value == pytest.approx(0.94)
    assert table.cell("LoRA, random update of its size", OVERLAP).value == pytest.approx(0.95)
    assert table.cell("LoRA, after 50 % of the steps", OVERLAP).value == pytest.approx(0.96)
    assert table.cell("HiP-LoRA", ANGLE).value == pytest.approx(20 + 10)
    assert (table.cell("LoRA", OVERLAP).n, table.cell("LoRA", OVERLAP).n_expected) == (2, 4)
    assert len(table.cell("LoRA", OVERLAP).runs) == 2
