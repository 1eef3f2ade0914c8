"""Tables that stand on merges, from fixtures in which every task falls by a known share."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from hiplora.report.aggregate import Sample, per_instance
from hiplora.report.evidence import Evidence
from hiplora.report.experiment import load
from hiplora.report.measures import TAUS
from hiplora.report.notes import LITERAL, parity_notes, prefix_notes, unjudged_notes
from hiplora.report.slots import Entry, Slot
from hiplora.report.table import latex, markdown, to_csv
from hiplora.report.tables import TABLES, differences, mergefail, table2, table11, table13
from tests.report.evidence import (
    HERE,
    RECORDS,
    build,
    everything,
    fixture_evidence,
    golden,
    labelled,
    rescored,
    with_slots,
)

OF_RUNS = [name for name in TABLES if load(name).runs]  # Table 4 shows conf/ instead


@pytest.mark.parametrize("name", OF_RUNS)
def test_golden(name):
    table = build(name, fixture_evidence(name))
    assert table.name == name
    assert markdown(table) == golden(HERE / "golden" / f"{name}.md", markdown(table))
    assert to_csv(table.cells) == golden(HERE / "golden" / f"{name}.csv", to_csv(table.cells))
    rows = {cell.row for cell in table.cells}
    assert sum(line.endswith(r" \\") for line in latex(table).splitlines()) == len(rows) + max(1, len(table.sections))
    assert latex(table).isascii(), "pdfLaTeX knows no other characters"


@pytest.mark.parametrize("name", OF_RUNS)
def test_every_table_renders_without_any_record(name):
    table = build(name, fixture_evidence(name, keep=lambda label: False))
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


def test_an_instance_whose_member_was_not_scored_alone_is_not_there():
    evidence = fixture_evidence("table2", keep=lambda label: (label["role"], label.get("task")) != ("before", "code"))
    cell = table2.build(evidence).cell("LoRA, after", "MMLU (%)")
    assert (cell.value, cell.n, cell.n_expected) == (None, 0, 6)


def test_merge_failures_by_size_and_threshold():
    table = mergefail.build(fixture_evidence("mergefail"))
    # 8 % and 16 %: the second fails at 0.85 and 0.9, both at 0.95.
    assert [table.cell("LoRA, 4 adapters", f"τ = {tau} (%)").value for tau in TAUS] == [50, 50, 100]
    pooled = table.cell("LoRA, all sizes", "τ = 0.9 (%)")
    other = table.cell("LoRA, all sizes", "τ = 0.9, adapter-level (%)")
    assert (pooled.value, pooled.n) == (other.value, other.n) == (50, 18)
    assert other.ci_high - other.ci_low > pooled.ci_high - pooled.ci_low
    chances = [table.cell("LoRA, 4 adapters", f"by chance, τ = {tau} (%)").value for tau in TAUS]
    assert 0 < chances[0] < chances[1] < chances[2] < 100
    assert any("is not judged: 4 of 90" in note for note in table.notes)


def test_paper_values_stand_only_beside_their_own_measure():
    table = table13.build(fixture_evidence("table13"))
    with_paper = {(cell.row, cell.column): cell.paper for cell in table.cells if cell.paper is not None}
    assert with_paper["LoRA, addition", "MergeFail (%)"] == 62
    assert with_paper["HiP-LoRA, TIES", "Mean absolute drop (pp)"] == 4.7
    assert len(with_paper) == 8
    assert LITERAL in table.notes, "which is of another parameterisation than the row"
    assert LITERAL not in build("table1", fixture_evidence("table1")).notes, "which has both"


def drops(evidence: Evidence, method: str) -> Sample:
    return per_instance(evidence, "drop", method=method)


def test_the_difference_of_two_methods_is_paired():
    evidence = fixture_evidence("mergefail")
    hip, found = drops(evidence, "hip"), drops(evidence, "lora").minus(drops(evidence, "hip"))
    # LoRA drops twice as much as HiP in each of the 12 common instances of 18; two common seeds, same sign.
    assert (len(found.of), found.expected) == (len(hip.of), 18) == (12, 18)
    assert list(found.values) == pytest.approx(list(hip.values))
    assert found.p_values() == (pytest.approx(2 / 10_001), 0.5)
    none = drops(evidence, "lora").minus(drops(evidence, "proj"))
    assert (none.of, none.p_values()) == ({}, (None, None))


def test_one_seed_has_no_interval_and_no_p():
    evidence = fixture_evidence("mergefail", keep=lambda label: label["role"] != "merged" or label["seed"] == 42)
    sample = drops(evidence, "lora")
    cell = sample.mean_cell("LoRA", table2.DROP, "seed")
    assert (cell.n, cell.n_expected, cell.ci_low, cell.ci_high) == (6, 18, None, None)
    same = sample.minus(sample)
    assert (same.interval("seed"), same.p_values()) == ((None, None), (None, None))
    by_adapter = sample.mean_cell("LoRA", table2.DROP, "adapter")
    assert by_adapter.ci_low < by_adapter.value < by_adapter.ci_high


def without_code(slot: Slot) -> Slot:
    """A merge whose code was not executed."""
    absent = {"pass@1": None, "pass@5": None, "pass@10": None}
    return replace(slot, entries=tuple(rescored(e, code=absent) if e.role != "train" else e for e in slot.entries))


def test_a_merge_with_an_unmeasured_score_is_not_judged():
    evidence = with_slots(fixture_evidence("mergefail"), without_code)
    slots = evidence.select("merge", method="lora", seed="42")
    found = {name: evidence.measure(name, slots) for name in ("drop", "fail@0.9", "nll_rise", "Δ/mmlu/acc")}
    both = next(each for each in found["drop"] if dict(each.members).keys() == {"mmlu", "gsm8k", "code", "scienceqa"})
    judged = next(each for each in found["fail@0.9"] if each.runs == both.runs)
    assert math.isnan(both.value)
    assert math.isnan(judged.value)
    assert not any(math.isnan(each.value) for name in ("nll_rise", "Δ/mmlu/acc") for each in found[name])
    mmlu = next(each for each in found["fail@0.9"] if "code" not in dict(each.members))
    assert mmlu.value in (0, 100)


def test_without_code_execution_a_table_says_what_it_lacks():
    evidence = with_slots(fixture_evidence("table13"), without_code)
    table = table13.build(evidence)
    every = evidence.measure("drop", evidence.select("merge", method="lora", merge="addition"))
    without = sum("code" not in dict(each.members) for each in every)
    cell = table.cell("LoRA, addition", "MergeFail (%)")
    assert (cell.n, cell.n_expected) == (without, len(every))
    assert any("(not executed, only likelihoods asked for" in note for note in table.notes)
    assert len(list(unjudged_notes(fixture_evidence("table13")))) == 1


def test_the_full_method_has_no_test_against_itself():
    table = table11.build(fixture_evidence("table11"))
    assert table.cell("HiP-LoRA", table11.P_FAIL.label) is None
    assert table.cell("HiP-LoRA", "Downstream average (%)").paper == 76.4


def test_tests_of_an_ablation_are_marked_where_they_are_short():
    """LoRA's merges stand in for those of an ablation; HiP has two of its three sampling seeds."""
    others = fixture_evidence("mergefail")
    lora = {others.slots[n].run.point["seed"]: others.slots[n] for n in others.select("merge", method="lora")}

    def stand_in(slot: Slot) -> Slot:
        if slot.run.group != "merge" or slot.run.point["method"] != "hip_no_stability":
            return slot
        entries = lora[slot.run.point["seed"]].entries
        return replace(slot, entries=tuple(e for e in entries if e.role != "merged" or len(e.members) == 4))

    evidence = with_slots(fixture_evidence("table11"), stand_in)
    table = table11.build(evidence)
    row = "without stability budget − HiP-LoRA"
    bootstrap, flips = (table.cell(row, column.label) for column in (table11.P_FAIL, table11.P_FAIL_SEEDS))
    assert (bootstrap.n, bootstrap.n_expected, flips.value) == (4, 6, 0.5)
    # One of the two merges of either seed fails: four draws meet none of them once in sixteen times.
    assert bootstrap.value == pytest.approx(2 / 16, abs=0.01)
    sources = [entry for slot in evidence.slots for entry in slot.entries if entry.record is not None]
    roles = [next(e.role for e in sources if e.runs == (id,)) for id in bootstrap.runs]
    assert (roles.count("merged"), roles.count("adapter")) == (8, 12)
    apart = table.cell(row, "Δ NLL rise of merges")
    theirs = table.cell("HiP-LoRA", "NLL rise of merges")
    rises = [per_instance(evidence, "nll_rise", method=method) for method in ("hip_no_stability", "hip")]
    common = rises[0].of.keys() & rises[1].of.keys()
    assert (apart.n, theirs.n) == (len(common), len(rises[1].of))
    assert apart.value == pytest.approx(sum(rises[0].of[k].value - rises[1].of[k].value for k in common) / len(common))
    assert apart.ci_low <= apart.value <= apart.ci_high
    retain = table.cell(row, table11.P_RETAIN_SEEDS.label)
    assert (retain.value, retain.n, retain.n_expected) == (None, 0, 3)


def test_differences_by_hand():
    # Both methods' adapters are paired by seed, their merges by instance: HiP drops half of what LoRA drops.
    evidence = fixture_evidence("differences")
    table = differences.build(evidence)
    name = "HiP-LoRA − LoRA: "
    text = table.cell(f"{name}Retain-text ↓ (nats/token)", "difference")
    assert (text.value, text.n, text.n_expected) == (pytest.approx(-0.1), 2, 3)
    drop = table.cell(f"{name}addition, mean absolute drop ↓ (pp)", "difference")
    hip, lora = (per_instance(evidence, "drop", method=method, merge="addition").of for method in ("hip", "lora"))
    common = hip.keys() & lora.keys()
    assert drop.value == pytest.approx(sum(hip[key].value - lora[key].value for key in common) / len(common))
    assert (drop.n, drop.n_expected) == (len(common), 18)
    wide = table.cell(f"{name}addition, mean absolute drop ↓ (pp)", "difference, adapter-level")
    assert wide.value == drop.value
    assert wide.ci_high - wide.ci_low > drop.ci_high - drop.ci_low
    assert table.cell("HiP-LoRA − Proj-LoRA: TIES, MergeFail ↓ (pp)", "difference") is None  # not both are merged so
    assert table.cell("HiP-LoRA − Proj-LoRA: addition, MergeFail ↓ (pp)", "difference").value is None  # no run yet


def test_parity_is_told_with_its_exceptions():
    evidence = fixture_evidence("table12")
    (train,) = labelled(everything, "train", method="hip", task="code", seed=42)
    sizes = {"adalora": [(1500, 990), (1500, 1010)], "dora": [(1050, 1050)], "hip": [(1000, 1000)]}
    slots = []
    for slot in evidence.slots:
        method = slot.run.point["method"]
        for trained, deployed in sizes.get(method, []):
            counts = {"trainable_parameters": trained, "deployed_parameters": deployed}
            result = train.result.model_copy(update=counts)
            record = train.model_copy(update={"result": result, "asked": {"method": {"name": method}}})
            slots.append(replace(slot, entries=(Entry(role="train", record=record),)))
    (note,) = parity_notes(replace(evidence, slots=slots))
    assert note.startswith("Deployed parameters, which should be equal to within 1%: HiP-LoRA 1,000; AdaLoRA × ")
    assert "HiP-LoRA 1,000; AdaLoRA × 0.990 to 1.010 (exception: " in note
    assert "; 1,500 trained, 990 to 1,010 deployed)" in note
    assert note.endswith("(exception: stores one magnitude per row of every matrix; 1,050 trained, 1,050 deployed).")


def test_a_table_names_the_rows_that_shared_prefixes():
    """They draw dropout masks otherwise, so a row that did not is not quite comparable."""
    evidence = fixture_evidence("table1")
    slots = [
        replace(slot, entries=tuple(map(unshared, slot.entries))) if slot.run.point["method"] == "hip" else slot
        for slot in evidence.slots
    ]
    assert [*prefix_notes(replace(evidence, slots=slots))] == [
        "In training, prefixes that prompts share were computed once, with one dropout mask for each (LoRA: "
        "12 trainings); for each prompt, with its own (HiP-LoRA: 10 trainings)."
    ]


def unshared(entry: Entry) -> Entry:
    if entry.role != "train" or entry.record is None:
        return entry
    result = entry.record.result.model_copy(update={"share_prefixes": False})
    return replace(entry, record=entry.record.model_copy(update={"result": result}))


def test_fixtures_are_read_whole():
    assert len(RECORDS) == 22 + 22 + 1 + 15 + 48 + 1 + 1 + 4
