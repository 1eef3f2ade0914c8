"""Tables 7 and 9 from fixtures with a known loss per stage; tests/report/evidence.py says which."""

from __future__ import annotations

import pytest

from hiplora.report.tables import table7, table9
from tests.report.evidence import fixture_evidence


def test_a_known_loss_by_hand() -> None:
    table = table7.build(fixture_evidence("table7"))
    # LoRA loses 4 points per stage: 12, 8 and 4 of the first three tasks, in all seeds.
    lost = table.cell("LoRA", "Forgetting (pp)")
    assert (lost.value, lost.std, lost.n, lost.n_expected, lost.paper) == (
        pytest.approx(8),
        pytest.approx(0),
        3,
        3,
        13.6,
    )
    assert table.cell("LoRA", "BWT (pp)").value == pytest.approx(-8)
    # A point per stage before a task's own: 1, 2 and 3.
    assert table.cell("LoRA", "FWT (pp)").value == pytest.approx(2)
    # 58, 62, 66 and 70 at the end of seed 42; one and two points more with the others.
    average = table.cell("LoRA", "AvgAcc (%)")
    assert (average.value, average.std) == (pytest.approx(65), pytest.approx(1))
    assert table.cell("LoRA", "AvgNLL (nats/token)").value == pytest.approx(3 - 65 / 50)
    assert table.cell("LoRA", "Forgetting-NLL (nats/token)").value == pytest.approx(8 / 50)
    assert average.runs[:5] == ("backbone", *(f"lora42{stage}" for stage in range(1, 5)))


def test_a_line_that_lacks_a_stage_has_no_figure_and_keeps_its_stages() -> None:
    cell = table7.build(fixture_evidence("table7")).cell("HiP-LoRA", "Forgetting (pp)")
    assert (cell.value, cell.n, cell.n_expected) == (pytest.approx(4), 2, 3)
    stages = table9.build(fixture_evidence("table9"))
    third, last = (stages.cell(f"HiP-LoRA, {row}", "MMLU (%)") for row in ("3: GSM8K", "4: code"))
    assert [(each.value, each.n) for each in (third, last)] == [(pytest.approx(67), 3), (pytest.approx(64.5), 2)]


def test_one_seed_is_all_that_a_baseline_is_asked_for() -> None:
    cell = table7.build(fixture_evidence("table7")).cell("O-LoRA", "Forgetting (pp)")
    assert (cell.value, cell.std, cell.n, cell.n_expected) == (pytest.approx(6), None, 1, 1)


def test_the_backbone_is_one_measurement() -> None:
    cell = table9.build(fixture_evidence("table9")).cell(table9.BASE, "ScienceQA (%)")
    assert (cell.value, cell.std, cell.n, cell.n_expected, cell.runs) == (pytest.approx(50), None, 1, 1, ("backbone",))
