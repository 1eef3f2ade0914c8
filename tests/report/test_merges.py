"""Tables that stand on merges, from fixtures in which every task falls by a known share."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hiplora.report.caption import parity_notes
from hiplora.report.cells import to_csv
from hiplora.report.instances import Instance, instances, unjudged_notes
from hiplora.report.merges import Measure, measure_cell, paired
from hiplora.report.render import latex, markdown

from hiplora.report.tables import TABLES, builder, differences, mergefail, table2, table11, table13
from tests.report.evidence import HERE, fixture_evidence, golden


@pytest.mark.parametrize("name", TABLES)
def test_golden(name):
    table = builder(name)(fixture_evidence(name))
    assert table.name == name
    assert markdown(table) == golden(HERE / "golden" / f"{name}.md", markdown(table))
    assert to_csv(table.cells) == golden(HERE / "golden" / f"{name}.csv", to_csv(table.cells))
    assert sum(line.endswith(r" \\") for line in latex(table).splitlines()) == len(table.rows) + 1


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
    found = paired(lora, hip, drop)
    # LoRA drops twice as much as HiP in each of the 12 common instances of 18; two common seeds, same sign.
    assert (len(found.differences), found.expected) == (len(instances(hip)), 18) == (12, 18)
    assert found.bootstrap_p == pytest.approx(2 / 10_001)
    assert found.sign_flip_p == 0.5
    none = paired(lora, evidence.select("merge", method="proj"), drop)
    assert (none.differences, none.bootstrap_p, none.sign_flip_p) == ((), None, None)


def test_one_seed_has_no_interval_and_no_p():
    slots = fixture_evidence("mergefail", keep=lambda record: record["labels"]["seed"] == 42).select(
        "merge", method="lora"
    )
    measure = Measure(column=table2.DROP, value=Instance.drop)
    cell = measure_cell(slots, measure, row="LoRA")
    assert (cell.n, cell.n_expected, cell.ci_low, cell.ci_high) == (6, 18, None, None)
    found = paired(slots, slots, measure)
    assert (found.interval, found.bootstrap_p, found.sign_flip_p) == ((None, None), None, None)
    by_adapter = measure_cell(slots, replace(measure, level="adapter"), row="LoRA")
    assert by_adapter.ci_low < by_adapter.value < by_adapter.ci_high


def test_a_merge_with_an_unmeasured_score_is_not_judged():
    scores = {"mmlu": {"acc": 0.5, "nll": 1.0}, "code": {"pass@1": None, "pass@5": None, "pass@10": None, "nll": 1.0}}
    both = Instance(run="r", seed="42", size=2, adapters={"mmlu": 42, "code": 42}, before=scores, after=scores)
    assert (both.drop(), both.failed(0.9)) == (None, None)
    assert both.deltas() == {("mmlu", "acc"): 0}
    mmlu = replace(both, size=1, adapters={"mmlu": 42})
    assert (mmlu.drop(), mmlu.failed(0.9)) == (0, 0)


def test_without_code_execution_a_table_says_what_it_lacks():
    evidence = fixture_evidence("table13")
    for slot in evidence.slots:
        for instance in slot.record["metrics"].get("instances", []) if slot.record else []:
            for side in ("before", "after"):
                if "code" in instance[side]:
                    instance[side]["code"] |= {"pass@1": None, "pass@5": None, "pass@10": None}
    table = table13.build(evidence)
    every = instances(evidence.select("merge", method="lora", merge="addition"))
    without = sum("code" not in i.adapters for i in every)
    cell = table.cell("LoRA, addition", "MergeFail (%)")
    assert (cell.n, cell.n_expected) == (without, len(every))
    assert any("as code execution was off" in note for note in table.notes)
    assert len(unjudged_notes(fixture_evidence("table13").select("merge"))) == 1


def test_the_full_method_has_no_test_against_itself():
    table = table11.build(fixture_evidence("table11"))
    assert table.cell("HiP-LoRA", table11.P_FAIL.label) is None
    assert table.cell("HiP-LoRA", "Downstream average (%)").paper == 76.4


def test_tests_of_an_ablation_are_marked_where_they_are_short():
    """LoRA's merges stand in for those of an ablation; HiP has two of its three sampling seeds."""
    evidence = fixture_evidence("table11")
    ablation = {s.wanted.point["seed"]: s for s in fixture_evidence("mergefail").select("merge", method="lora")}
    slots = [
        replace(slot, record=ablation[slot.wanted.point["seed"]].record)
        if slot.wanted.group == "merge" and slot.wanted.point["method"] == "hip_no_stability"
        else slot
        for slot in evidence.slots
    ]
    table = table11.build(replace(evidence, slots=slots))
    row = "without stability budget"
    bootstrap, flips = (table.cell(row, column.label) for column in (table11.P_FAIL, table11.P_FAIL_SEEDS))
    assert (bootstrap.n, bootstrap.n_expected, flips.value) == (12, 18, 0.5)
    assert 2 / 10_001 <= bootstrap.value < 0.001
    assert len(bootstrap.runs) == 4
    retain = table.cell(row, table11.P_RETAIN_SEEDS.label)
    assert (retain.value, retain.n, retain.n_expected) == (None, 0, 3)


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
