"""Table 5: ratios are of one round, so that a machine that slows down slows both."""

from __future__ import annotations

import pytest

from hiplora.report.tables import table5
from tests.report.evidence import fixture_evidence


def test_ratios_are_taken_within_a_round():
    table = table5.build(fixture_evidence("table5"))
    cell = table.cell("HiP-LoRA", table5.RATIO.label)
    assert cell.value == pytest.approx((0.9 + 0.95 + 0.95) / 3)
    assert (cell.ci_low, cell.ci_high, cell.n) == (None, None, 3), "the least and the greatest are no interval"
    assert cell.words.endswith("[0.900, 0.950] (3)")
    assert table.cell("HiP-LoRA", table5.SPEED.label).value == 190
    svd = table.cell("HiP-LoRA", table5.SVD.label)
    assert (svd.value, svd.n, svd.n_expected) == (0.5, 1, 1), "measured once, not in every turn"


def test_a_method_without_an_svd_has_no_cost_of_one():
    table = table5.build(fixture_evidence("table5"))
    assert table.cell("LoRA", table5.CACHE.label) is None
    assert table.cell("Proj-LoRA", table5.RATIO.label).value is None
