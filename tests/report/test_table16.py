"""Table 16 on simulated frontiers whose truth is known: an effect, none, and an arm that never learns."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from hiplora.compose import compose_cached
from hiplora.errors import UserError
from hiplora.pipelines.base import training
from hiplora.report import contrasts, find
from hiplora.report.contrasts import EVERYONE, NARROW, SECOND, SIGNS, TRAINING, VERDICT
from hiplora.report.evidence import Evidence
from hiplora.report.figures import figure7
from hiplora.report.marks import STALE
from hiplora.report.matched import lost
from hiplora.report.notes import level_notes
from hiplora.report.slots import Entry, Slot
from hiplora.report.table import Table, markdown, to_csv
from hiplora.report.tables import table16
from hiplora.selection import Reference, Selection, write
from hiplora.stages.results import Scores
from hiplora.stages.score import Score
from hiplora.stages.sources import Merged
from hiplora.stages.store import Places, Store
from hiplora.tasks import primary
from tests.report.evidence import WORLD, fixture_evidence
from tests.report.frontiers import BASE, GAIN, LEVELS, TEXT, World

HIP_LORA = "Text rise: HiP-LoRA − LoRA"


@pytest.fixture(scope="module")
def evidence() -> Evidence:
    return fixture_evidence("table16")


@pytest.fixture(scope="module")
def table(evidence) -> Table:
    return table16.build(evidence)


def frontiers(world: World = WORLD) -> Evidence:
    """Without merges and the sharper pair, which the contrasts of text do not need: a quick table."""
    evidence = fixture_evidence("table16", world=world)
    return replace(evidence, slots=[slot for slot in evidence.slots if slot.run.group == "frontier"])


@pytest.fixture(scope="module")
def plain() -> Evidence:
    return frontiers()


def difference(table: Table, row: str):
    return table.cell(row, contrasts.DIFFERENCE.label)


def words(table: Table, row: str, column) -> str:
    return table.cell(row, column.label).words


def test_a_known_effect_is_supported_and_covered(table):
    cell = difference(table, HIP_LORA)
    assert cell.ci_low < WORLD.forgets["hip"] - 1 < cell.ci_high
    assert (cell.n, cell.n_expected) == (6, 6)
    assert words(table, HIP_LORA, VERDICT) == "supported"
    assert words(table, HIP_LORA, SIGNS) == "− − − −"
    assert any("in the order gsm8k, scienceqa, mmlu, code" in note for note in table.notes)
    assert words(table, HIP_LORA, SECOND).startswith("yes (−0.2")
    assert words(table, HIP_LORA, TRAINING).startswith("yes (−0.2")
    assert table.cell(HIP_LORA, "Margin").value == 0.1
    assert words(table, "Text rise: Proj-LoRA − LoRA", VERDICT) == "not supported", "a twentieth is inside the margin"
    assert words(table, "Kept, TIES, as they are: HiP-LoRA − LoRA", VERDICT) == "supported"
    assert words(table, "Inside: LoRA inside the top 32 − LoRA inside 32 random ones", VERDICT) == "not supported"
    assert table.cell("LoRA inside the top 32", "Never at the level").words == "0 of 6"


def test_a_moving_channel_is_an_arm_where_it_is_another(plain, table):
    row = "Text rise: HiP-LoRA, channel moving − Proj-LoRA"
    assert words(table, row, VERDICT) == "supported"
    same = {tuple(slot.run.point.items())[1:]: slot.entries for slot in plain.slots if is_arm(slot, "hip")}
    slots = [
        replace(slot, entries=same[tuple(slot.run.point.items())[1:]]) if is_arm(slot, "hip_gated") else slot
        for slot in plain.slots
    ]
    alike = table16.build(replace(plain, slots=slots))
    assert not [cell.row for cell in alike.cells if "moving" in cell.row]
    assert difference(alike, HIP_LORA) == difference(table, HIP_LORA), "it is in no family of the others"


def is_arm(slot: Slot, arm: str) -> bool:
    return slot.run.point["method"] == arm


def test_the_arms_are_read_off_at_the_level(table):
    assert table.cell("LoRA", "Text rise, ratio to LoRA").value == pytest.approx(1)
    assert table.cell("LoRA", "c at the level").value == pytest.approx(0.5, abs=0.02)
    assert table.cell("LoRA", "‖c ΔW‖").value == pytest.approx(5, abs=0.2)
    assert table.cell("LoRA", "Text rise, c = 1 (nats/token)").value == pytest.approx(
        np.mean([*TEXT.values()]), rel=0.1
    )
    assert table.cell("LoRA", "Own NLL, c = 1 (nats/token)").value == pytest.approx(BASE - GAIN, abs=0.02)
    mean = np.mean([table.cell("LoRA, by task", task).value for task in TEXT])
    assert table.cell("LoRA", "Text rise (nats/token)").value == pytest.approx(mean)
    parts = [table.cell("LoRA", name).value for name in ("its rises", "its falls")]
    assert table.cell("LoRA", "Retain-NLL (nats/token)").value == pytest.approx(sum(parts))
    assert parts[0] > 0 > parts[1]
    assert table.cell("LoRA", "Never at the level").words == "0 of 24"


def test_energy_in_the_leading_subspaces_stands_beside_a_random_updates(table):
    for arm, share in {"LoRA": 15, "Proj-LoRA": 0, "HiP-LoRA": 45, "Proj-LoRA, random directions": 13}.items():
        whole = [table.cell(f"{arm}, energy", f"{task}, %").value for task in TEXT]
        beyond = [table.cell(f"{arm}, energy beyond a random update's", f"{task}, %") for task in TEXT]
        assert whole == pytest.approx([share] * 4, abs=0.4)
        assert [cell.value for cell in beyond] == pytest.approx([each - 13 for each in whole])
        assert all((cell.ci_low < 0 < cell.ci_high) == (share == 13) for cell in beyond)


def test_without_an_effect_nothing_is_supported():
    quiet = table16.build(frontiers(World(noise=0.05)))
    loud = table16.build(frontiers(World(noise=0.8)))
    for table, verdict in ((quiet, "not supported"), (loud, "undecidable")):
        rows = table.sections["Contrasts: text rise (primary)"]
        assert [words(table, row, VERDICT) for row in rows] == [verdict] * 5


def test_an_arm_that_never_learns_is_counted_and_has_no_contrast():
    world = replace(WORLD, learns={"hip": 0.5})
    table = table16.build(frontiers(world))
    assert table.cell("HiP-LoRA", "Never at the level").words == "24 of 24"
    assert (difference(table, HIP_LORA).value, difference(table, HIP_LORA).n) == (None, 0)
    assert table.cell(HIP_LORA, VERDICT.label).words == ""
    assert table.cell(HIP_LORA, EVERYONE.label).n == 6, "a test needs seeds at the level, this column does not"
    assert words(table, "Text rise: Proj-LoRA − LoRA", VERDICT) == "not supported"


@pytest.mark.parametrize("lora", ["falls", "is missing for one task"])
def test_without_a_rise_of_loras_there_is_no_unit_and_no_verdict(plain, lora):
    without = [slot for slot in plain.slots if not (is_arm(slot, "lora") and slot.run.point["task"] == "code")]
    falling = frontiers(replace(WORLD, forgets={**WORLD.forgets, "lora": -0.5}))
    table = table16.build(falling if lora == "falls" else replace(plain, slots=without))
    ratio = table.cell("HiP-LoRA", table16.RATIO.label)
    assert (ratio.value, ratio.n, ratio.n_expected) == (None, 0, 6)
    assert table.cell("HiP-LoRA", "Text rise (nats/token)").n == 6
    assert difference(table, HIP_LORA).value is None
    assert words(table, HIP_LORA, VERDICT) == ""


def test_seeds_that_never_reach_the_level_are_left_out_and_shown_beside():
    world = replace(WORLD, learns={"hip": 0.77})
    table = table16.build(frontiers(world))
    never = table.cell("HiP-LoRA", "Never at the level")
    without, everyone = difference(table, HIP_LORA), table.cell(HIP_LORA, EVERYONE.label)
    assert never.words == f"{never.value:.0f} of 24"
    assert 2 <= without.n < everyone.n == 6
    # Near the end of its frontier an adapter has forgotten far more than LoRA at half of its own.
    assert without.value > 0
    assert table.cell(HIP_LORA, NARROW.label).words.startswith("[")


def test_what_is_stale_or_unlike_reaches_the_cells(plain):
    def marked(entry: Entry) -> Entry:
        return replace(entry, marks=STALE) if entry.members == (("code", 3),) else entry

    slots = [replace(slot, entries=tuple(map(marked, slot.entries))) for slot in plain.slots]
    table = table16.build(replace(plain, slots=slots))
    assert difference(table, HIP_LORA).marks == "‡"
    assert "| −0.205‡ [" in markdown(table)
    assert ",‡," in to_csv([difference(table, HIP_LORA)])
    assert any(note.startswith("‡") and "still counts in the numbers" in note for note in table.notes)


def test_what_a_ratio_is_divided_by_stands_behind_it(plain):
    """A stale record of LoRA's concerns every number in units of LoRA's, also those of other arms."""

    def marked(slot: Slot, entry: Entry) -> Entry:
        return replace(entry, marks=STALE) if is_arm(slot, "lora") and entry.members == (("code", 3),) else entry

    slots = [replace(slot, entries=tuple(marked(slot, entry) for entry in slot.entries)) for slot in plain.slots]
    changed = replace(plain, slots=slots)
    cell = difference(table16.build(changed), "Text rise: HiP-LoRA − Proj-LoRA")
    dots = figure7.build(changed).panel("frontier")["HiP-LoRA"]
    lora = {run for n in plain.select("frontier", method="lora") for run in plain.measure("scale/text", [n])[0].runs}
    assert len(lora) == 1 + 24, "with the backbone's"
    for each in (cell, *dots):
        assert each.marks == STALE
        assert lora < set(each.runs)


def test_without_levels_the_table_says_what_gives_them(plain):
    table = table16.build(replace(plain, levels={}))
    assert difference(table, HIP_LORA).value is None
    assert any("pipeline=select" in note for note in table.notes)
    partly = table16.build(replace(plain, levels={"mmlu": LEVELS["mmlu"]}))
    assert partly.cell("LoRA, by task", "mmlu").value is not None
    assert partly.cell("LoRA, by task", "code") is None
    assert difference(partly, HIP_LORA).n == 6, "the other tasks blank no row"
    assert any("No level yet for gsm8k, scienceqa, code" in note for note in partly.notes)


def test_the_notes_say_what_a_level_is_and_how_much_is_measured(plain, tmp_path):
    config = compose_cached(["pipeline=frontier", "method=lora", "pipeline.own_items=70", "pipeline.text_tokens=4096"])
    asked = {f"f{seed}": config.pipeline.frontier(config, training(config, seed=seed)).described() for seed in (8, 7)}
    chosen = Selection(
        backbone="", identity="", level_scale=0.5, level_gain=0.85, gate=0.01, objective=(), winners={}, gated={},
        levels=LEVELS, levels_from={"code": [*asked]}, trials=[],
        reference=Reference(words=(), levels=LEVELS, runs=()),
    )  # fmt: skip
    write(tmp_path, chosen, "")
    store = SimpleNamespace(tracked=SimpleNamespace(asked=asked.get))
    slots = [replace(slot, config=config) for slot in plain.slots]
    notes = " ".join(level_notes(replace(plain, slots=slots, folder=tmp_path, store=store), "frontier"))
    assert "(LoRA; seeds 7, 8) have made 85 % of their largest gain" in notes
    assert "up to 70 items of validation" in notes
    assert "4,096 tokens of each general text" in notes


def test_a_task_whose_level_the_backbone_has_is_left_out(plain):
    there = table16.build(replace(plain, levels={**LEVELS, "code": 2.0}))
    without = table16.build(replace(plain, levels={task: v for task, v in LEVELS.items() if task != "code"}))
    assert difference(there, HIP_LORA) == difference(without, HIP_LORA)
    assert there.cell("LoRA", "Never at the level").words == "0 of 18"
    assert any(note.startswith("code is left out: its level, 2.000") for note in there.notes)
    assert any("code is left out" in note for note in figure7.build(replace(plain, levels={"code": 2.0})).notes)


def test_data_with_one_general_text_is_not_asked_for_a_second(plain):
    table = table16.build(replace(plain, texts=("text",)))
    assert words(table, HIP_LORA, VERDICT) == "supported"
    assert table.cell(HIP_LORA, SECOND.label) is None
    assert table16.ONE_TEXT in table.notes


def test_what_results_refuse_is_the_slots_problem(evidence, monkeypatch, tmp_path):
    def refuse(config, answer):
        raise UserError("not below the backbone's own")

    monkeypatch.setattr(find, "known", refuse)
    slot = replace(evidence.slots[0], entries=(), whole=False, config=compose_cached(["method=lora"]))
    store = Store(Places(outputs=tmp_path, results=tmp_path), local=False)
    found = find._filled(slot, store, "cpu-float32")
    assert (found.problem, found.missing) == ("not below the backbone's own", False)


def test_a_merge_of_rescaled_updates_is_a_merge() -> None:
    """Its scores stand where those of any other merge do; the row of the table tells them apart."""
    config = compose_cached(["method=lora", "pipeline=matched_merge"])
    trains = tuple(training(config, seed=seed) for seed in (1, 2))
    for more in ({"scales": (0.5, 0.5)}, {"norms": (1.0, 1.0)}):
        source = Merged(adapters=trains, operator=config.merge, **more)
        score = Score(of=source, benchmarks=config.benchmarks, evaluation=config.evaluation, data=config.data)
        entry = find._entry(score)
        assert (entry.role, len(entry.members)) == ("merged", 2)


def test_forgetting_without_word_problems():
    base = {name: {"nll": 2.0} for name in ("mmlu", "scienceqa", "gsm8k", "code", "text")}
    now = {"mmlu": {"nll": 2.3}, "scienceqa": {"nll": 1.9}, "gsm8k": {"nll": 3.0}, "text": {"nll": 2.5}}
    found = lost(base, {**now, "code": {"nll": 1.0}}, trained_on="code")
    assert found["nll"] == pytest.approx(0.1)
    assert (found["rises"], found["falls"]) == (pytest.approx(0.15), pytest.approx(-0.05))
    assert (found["styled"], found["text"]) == (pytest.approx(1.0), pytest.approx(0.5))
    assert np.isnan(found["text_sampled"])
    assert np.isnan(lost(base, {**now, "code": {"nll": None}}, trained_on="mmlu")["nll"])


def test_what_a_merge_keeps_of_each_gain(evidence):
    slots = evidence.select("merges", method="lora", merge="ties", norms="own_norms", seed="42")

    def rescored(entry: Entry) -> Entry:
        if entry.role not in ("merged", "adapter") or entry.record is None:
            return entry
        # Of gains of 0.4 each: more than all, half, less than nothing, far less.
        left = {"mmlu": 1.5, "gsm8k": 1.8, "code": 2.2, "scienceqa": 3.0}
        left = {entry.members[0][0]: 1.6} if entry.role == "adapter" else left
        result = Scores(
            benchmarks={t: {primary(t): None, "nll": nll} for t, nll in left.items()}, sandbox="off", seconds=1
        )
        return replace(entry, record=entry.record.model_copy(update={"result": result}))

    changed = replace(
        evidence, slots=[replace(slot, entries=tuple(map(rescored, slot.entries))) for slot in evidence.slots]
    )
    (kept,), (least,) = (changed.measure(name, slots) for name in ("kept", "kept_least"))
    assert kept.value == pytest.approx((1 + 0.5 - 0.5 - 1) / 4)
    assert least.value == -1
