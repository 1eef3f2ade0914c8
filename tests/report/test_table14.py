"""Table 14: one merge per sampling seed, and differences that are paired by merge."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from hiplora import stats
from hiplora.report.aggregate import per_instance
from hiplora.report.slots import Slot
from hiplora.report.tables import table14
from hiplora.tasks import ORDER
from tests.report.evidence import fixture_evidence, rescored, with_slots


def test_one_merge_per_sampling_seed_has_an_interval_wider_than_its_range():
    """A bootstrap of three numbers cannot leave their range."""
    rises = {"42": 2.0, "100": 2.4, "2024": 3.0}

    def shift(slot: Slot) -> Slot:
        if slot.run.group != "merge":
            return slot
        nll = {task: {"nll": rises[slot.run.point["seed"]]} for task in ORDER}
        entries = (rescored(entry, **nll) if entry.role == "merged" else entry for entry in slot.entries)
        return replace(slot, entries=tuple(entries))

    evidence = with_slots(fixture_evidence("table14"), shift)
    cell = table14.build(evidence).cell("LoRA, TIES, no calibration", "NLL rise (nats/token)")
    values = per_instance(evidence, "nll_rise", (4,), method="lora", merge="ties", calibration="none").values
    assert np.ptp(values) > 0.5
    assert (cell.n, cell.ci_low, cell.ci_high) == (3, *map(pytest.approx, stats.t_interval(values)))
    assert cell.ci_low < values.min() < values.max() < cell.ci_high


def test_differences_of_operators_and_calibrations_are_paired_by_merge():
    """Rises of a seed, a method, an operator and a calibration add up, with one operator that Pico does not help."""
    evidence = fixture_evidence("table14")
    there = {"method": "lora", "merge": "ties", "calibration": "none"}
    known = {evidence.slots[n].run.point["seed"]: evidence.slots[n].entries for n in evidence.select("merge", **there)}
    seeds, operators = {"42": 2.0, "100": 2.4, "2024": 3.0}, evidence.experiment.keys("merge", "merge")
    by_calibration = {"none": 0.3, "rescale": 0.2, "random": 0.1, "pico": 0.0}

    def shift(slot: Slot) -> Slot:
        if slot.run.group != "merge":
            return slot
        at = slot.run.point
        gain = 0.0 if at["merge"] == "ties" else by_calibration[at["calibration"]]
        value = seeds[at["seed"]] + operators.index(at["merge"]) + gain - 0.5 * (at["method"] == "hip")
        nll = {task: {"nll": value} for task in ORDER}
        entries = (rescored(entry, **nll) if entry.role == "merged" else entry for entry in known[at["seed"]])
        return replace(slot, entries=tuple(entries))

    table = table14.build(with_slots(evidence, shift))
    expected = {
        "HiP-LoRA − LoRA, TIES, no calibration": -0.5,
        "HiP-LoRA − LoRA, mean over operators, Pico": -0.5,
        "LoRA, no calibration: TIES − task arithmetic": 1 - 0.3,
        "LoRA, rescale only: TIES − task arithmetic": 1 - 0.2,
        "HiP-LoRA − LoRA, DARE, rescale only": -0.5,
        "LoRA, TIES: Pico − rescale only": 0,
        "HiP-LoRA, DARE: Pico − rescale only": -0.2,
        "HiP-LoRA, mean over operators: Pico − rescale only": -0.2 * 6 / 7,
    }
    for row, value in expected.items():
        cell = table.cell(row, "Δ NLL rise (nats/token)")
        assert (cell.value, cell.n, cell.n_expected) == (pytest.approx(value), 3, 3), row
        assert (cell.ci_low, cell.ci_high) == (pytest.approx(value), pytest.approx(value)), "the seeds cancel"

    def without_one(slot: Slot) -> Slot:
        gone = (slot.run.point.get("merge"), slot.run.point["seed"]) == ("dare", "42")
        return replace(slot, entries=()) if gone else shift(slot)

    cell = table14.build(with_slots(evidence, without_one)).cell(
        "LoRA, mean over operators: Pico − rescale only", "Δ NLL rise (nats/token)"
    )
    assert cell.n == 2, "a mean over operators takes only merges that every operator has"
