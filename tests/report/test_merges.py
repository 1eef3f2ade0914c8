"""Tables that stand on merges, from fixtures in which every task falls by a known share."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hiplora.report.caption import parity_notes
from hiplora.report.cells import to_csv
from hiplora.report.merges import Instance, Measure, instances, paired_p
from hiplora.report.render import latex, markdown
from hiplora.report.tables import TABLES, builder, differences, mergefail, table2, table11, table13
from tests.report.evidence import HERE, fixture_evidence, golden


@pytest.mark.parametrize("name", TABLES)
def test_golden(name):
    table = builder(name)(fixture_evidence(name))
    assert table.name == name
    assert markdown(table) == golden(HERE / "golden" / f"{name}.md", markdown(table))
    assert to_csv(table.cells) == golden(HERE / "golden" / f"{name}.csv", to_csv(table.cells))
    assert latex(table).count(r"\\") == len(table.rows) + 1


@pytest.mark.parametrize("name", TABLES)
def test_every_table_renders_without_any_record(name):
    table = builder(name)(fixture_evidence(name, keep=lambda record: False))
    assert {cell.value for cell in table.cells} == {None}
    assert table.commands


def test_before_after_and_drop_by_hand():
    # LoRA's scores fall by 8 % in half of the instances and by 16 % in the others: 12 % on average.
    table = table2.build(fixture_evidence("table2"))
    assert table.cell("LoRA, before", "MMLU (%)").value == pytest.approx(60)
    assert table.cell("LoRA, Δ", "MMLU (%)").value == pytest.approx(-0.12 * 60)
    drop = table.cell("LoRA, Δ", "Mean absolute drop (pp)")
    assert drop.value == pytest.approx(0.12 * (60 + 40 + 80 + 3 * 20) / 6)
    assert (drop.n, drop.n_expected, drop.paper) == (6, 6, 20.24)
    assert drop.ci_low < drop.value < drop.ci_high


def test_a_missing_sampling_seed_is_marked():
    cell = table2.build(fixture_evidence("table2")).cell("HiP-LoRA, Δ", "Mean absolute drop (pp)")
    assert (cell.n, cell.n_expected) == (4, 6)


def test_merge_failures_by_size_and_threshold():
    table = mergefail.build(fixture_evidence("mergefail"))
    # 8 % and 16 %: the second fails at 0.85 and 0.9, both at 0.95.
    assert [table.cell("LoRA, 4 adapters", f"τ = {tau} (%)").value for tau in mergefail.TAUS] == [50, 50, 100]
    pooled = table.cell("LoRA, all sizes", "τ = 0.9 (%)")
    other = table.cell("LoRA, all sizes", "τ = 0.9, adapter-level (%)")
    assert (pooled.value, pooled.n) == (other.value, other.n) == (50, 18)
    assert other.ci_high - other.ci_low > pooled.ci_high - pooled.ci_low
    assert any("is not judged: 4 of 90" in note for note in table.notes)


def test_paper_values_stand_only_beside_their_own_measure():
    table = table13.build(fixture_evidence("table13"))
    with_paper = {(cell.row, cell.column): cell.paper for cell in table.cells if cell.paper is not None}
    assert with_paper["LoRA, addition", "MergeFail (%)"] == 62
    assert with_paper["HiP-LoRA, TIES", "Mean absolute drop (pp)"] == 4.7
    assert len(with_paper) == 8


def test_the_difference_of_two_methods_is_paired():
    evidence = fixture_evidence("mergefail")
    drop = Measure(column=table2.DROP, value=Instance.drop)
    lora, hip = evidence.select("merge", method="lora"), evidence.select("merge", method="hip")
    bootstrap, flips, pairs = paired_p(lora, hip, drop)
    # LoRA drops twice as much as HiP in each of the 12 common instances; two common seeds, same sign.
    assert pairs == len(instances(hip)) == 12
    assert bootstrap == pytest.approx(2 / 10_001)
    assert flips == 0.5
    assert paired_p(lora, evidence.select("merge", method="proj"), drop) is None


def test_unmeasured_scores_are_not_judged():
    scores = {"mmlu": {"acc": 0.5, "nll": 1.0}, "code": {"pass@1": None, "pass@5": None, "pass@10": None, "nll": 1.0}}
    one = Instance(run="r", seed="42", size=2, adapters={"mmlu": 42, "code": 42}, before=scores, after=scores)
    assert (one.drop(), one.failed(0.9)) == (0, 0)
    code = Instance(run="r", seed="42", size=1, adapters={"code": 42}, before=scores, after=scores)
    assert (code.drop(), code.failed(0.9)) == (None, None)


def test_the_full_method_has_no_test_against_itself():
    table = table11.build(fixture_evidence("table11"))
    assert table.cell("HiP-LoRA", table11.P_FAIL.label) is None
    assert table.cell("HiP-LoRA", "Downstream average (%)").paper == 76.4


def test_differences_by_hand():
    # Both methods' adapters are paired by seed, their merges by instance: HiP drops half of what LoRA drops.
    table = differences.build(fixture_evidence("differences"))
    name = "HiP-LoRA − LoRA: "
    text = table.cell(f"{name}Retain-text ↓ (nats/token)", "difference")
    assert (text.value, text.n, text.n_expected) == (pytest.approx(-0.1), 2, 3)
    drop = table.cell(f"{name}addition, mean absolute drop ↓ (pp)", "difference")
    evidence = fixture_evidence("differences")
    by_key = [
        {i.key: i.drop() for i in instances(evidence.select("merge", method=method, merge="addition"))}
        for method in ("hip", "lora")
    ]
    common = by_key[0].keys() & by_key[1].keys()
    assert drop.value == pytest.approx(sum(by_key[0][key] - by_key[1][key] for key in common) / len(common))
    assert (drop.n, drop.n_expected) == (len(common), 18)
    wide = table.cell(f"{name}addition, mean absolute drop ↓ (pp)", "difference, adapter-level")
    assert wide.value == drop.value
    assert wide.ci_high - wide.ci_low > drop.ci_high - drop.ci_low
    assert table.cell("HiP-LoRA − Proj-LoRA: TIES, MergeFail ↓ (pp)", "difference").value is None


def test_parity_is_told_with_its_exceptions():
    evidence = fixture_evidence("table12")
    sizes = {"adalora": [(1500, 990), (1500, 1010)], "dora": [(1050, 1050)], "hip": [(1000, 1000)]}
    slots = []
    for slot in evidence.slots:
        method = slot.wanted.point["method"]
        for trained, deployed in sizes.get(method, []):
            training = {"trainable_parameters": trained, "deployed_parameters": deployed}
            slots.append(replace(slot, record={"labels": {"method": method}, "training": training}))
    (note,) = parity_notes(replace(evidence, slots=slots))
    assert note.startswith("Deployed parameters, to be equal within 1%: HiP-LoRA 1,000; AdaLoRA × 0.990 to 1.010 (exc")
    assert "; 1,500 trained, 990 to 1,010 deployed)" in note
    assert note.endswith("(exception: stores one magnitude per row of every matrix; 1,050 trained, 1,050 deployed).")
