"""Tables 8 and 10 from edits with known counts (tests/report/edits.py), and batches that are read together."""

from __future__ import annotations

import pytest

from hiplora.report.edits import alone, figures, pairs
from hiplora.report.tables import table8, table10
from hiplora.report.tables.table8 import UNEDITED
from hiplora.stages.results import Edited
from tests.report.edits import BASE, edited, of_method
from tests.report.evidence import fixture_evidence


def lora() -> Edited:
    result = of_method("lora", "42")
    assert result is not None
    return result


def test_figures_by_hand() -> None:
    found = figures(pairs(BASE, [lora()]))
    # Of four facts two are generated and three likelier, the same first ones; the backbone believed the middle two.
    for group in ("all", "entity", "relation", "temporal"):
        told = found[group]
        assert (told["generated"], told["preferred"], told["success"]) == (50, 75, 75)
        assert (told["believed"], told["believing"]) == (100, 50)
    # Of forty probes four are lost and two gained; behind an edit eight are lost.
    assert (found["all"]["change"], found["all"]["locality"], found["all"]["flips"]) == pytest.approx((-5, 5, 15))
    assert (found["all"]["front_change"], found["all"]["front_flips"]) == pytest.approx((-20, 20))
    assert "locality" not in found["entity"]
    # Facts 0 to 3 are the entities': with twelve facts probes 0 to 3, 12 to 15, 24 to 27 and 36 to 39 are theirs.
    assert found["entity"]["front_change"] == pytest.approx(-100 * 4 / 16)
    assert found["entity"]["neighbourhood"] == 75
    assert found["temporal"]["log_p_new"] == pytest.approx(-2.5)


def test_success_is_generated_or_likelier() -> None:
    one = edited(generated=3, preferred=2, lost=0, gained=0, front_lost=0, log_p_new=-1.0)
    told = figures(pairs(BASE, [one]))["all"]
    assert (told["success"], told["generated"], told["preferred"]) == (75, 75, 50)
    bare = figures(alone(BASE))["all"]
    assert (bare["success"], bare["change"], bare["flips"], bare["front_flips"]) == (25, 0, 0, 0)


def test_batches_are_counted_together_and_their_locality_is_a_mean() -> None:
    both = BASE.model_copy(update={"batches": BASE.batches * 2})
    other = edited(generated=4, preferred=4, lost=0, gained=3, front_lost=0, log_p_new=-0.1)
    told = figures(pairs(both, [lora(), other]))["all"]
    assert (told["generated"], told["success"]) == (75, 87.5)
    assert (told["change"], told["locality"]) == pytest.approx(((-5 + 15) / 2, (5 + 15) / 2))
    assert told["log_p_new"] == pytest.approx((-1.5 - 1.1) / 2)


def test_a_mean_over_probes_counts_the_probes_of_a_batch() -> None:
    def batch(flags: str, value: float):
        means = {"entity": {"log_p_new": value, "probe_log_p_gold": value}}
        return BASE.batches[0].model_copy(
            update={
                "categories": {"entity": flags},
                "outcomes": {name: "0" * len(flags) for name in BASE.batches[0].outcomes},
                "means": means,
            }
        )

    # Two of four edits are the entities', and half of forty probes; then one of sixteen edits, and probes 0, 16 and 32.
    batches = [batch("1100", -1.0), batch("1" + "0" * 15, -2.0)]
    both = BASE.model_copy(update={"batches": batches})
    told = figures(alone(both))["entity"]
    assert told["log_p_new"] == pytest.approx((2 * -1.0 + 1 * -2.0) / 3)
    assert told["probe_log_p_gold"] == pytest.approx((20 * -1.0 + 3 * -2.0) / 23)


def test_table_8() -> None:
    table = table8.build(fixture_evidence("table8"))
    success = table.cell("LoRA", "Success (%)")
    assert (success.value, success.std, success.n, success.n_expected, success.paper) == (75, 0, 3, 3, 86.4)
    # 4, 6 and 8 of forty probes lost, two gained.
    locality, signed = (table.cell("LoRA", label) for label in ("Locality (pp)", "Accuracy, signed (pp)"))
    assert (locality.value, locality.std, locality.paper) == (pytest.approx(10), pytest.approx(5), 3.8)
    assert (signed.value, signed.runs[:2]) == (pytest.approx(-10), ("backbone", "lora42"))
    hip = table.cell("HiP-LoRA", "Locality (pp)")
    assert (hip.value, hip.n, hip.n_expected) == (pytest.approx(2.5), 2, 3)
    assert (table.cell("PiSSA", "Success (%)").value, table.cell("PiSSA", "Success (%)").n) == (None, 0)
    bare = table.cell(UNEDITED, "Success (%)")
    assert (bare.value, bare.n, bare.n_expected, bare.runs) == (25, 1, 1, ("backbone",))
    assert table.cell(UNEDITED, "Locality (pp)") is None, "blank by design"


def test_differences_are_paired_by_seed() -> None:
    cell = table8.build(fixture_evidence("table8")).cell("HiP-LoRA − LoRA", "Δ Locality (pp)")
    # LoRA loses 5, 10 and 15 points, HiP-LoRA 0 and 5 with the first two seeds: alike once paired, though both vary.
    assert (cell.value, cell.n, cell.n_expected) == (pytest.approx(-5), 2, 3)
    assert (cell.ci_low, cell.ci_high) == pytest.approx((-5, -5))
    assert set(cell.runs) == {"backbone", "hip42", "lora42", "hip100", "lora100"}


def test_table_10_has_every_category() -> None:
    table = table10.build(fixture_evidence("table10"))
    label = "log p(new) (nats/token)"
    for name, shift in (("Entity/Attribute", 0), ("Relation/Fact", -1), ("Temporal/Numeric", -2)):
        assert table.cell(f"{name}: LoRA", label).value == pytest.approx(-0.5 + shift)
        assert table.cell(f"{name}: {UNEDITED}", label).value == pytest.approx(-5 + shift)
    assert table.cell("Relation/Fact: HiP-LoRA", "Success (%)").n == 2
