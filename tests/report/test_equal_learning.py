"""What an adapter forgot at the level is read where it was measured."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace
from itertools import product

import pytest

from hiplora.report.evidence import Evidence
from hiplora.report.figures import figure7
from hiplora.report.tables import table16
from tests.report.evidence import fixture_evidence
from tests.report.frontiers import SCALES, TEXT, World

WAYS = ("scale", "fraction", "any")
LEARNS = {"lora": 1.0, "hip": 0.85}  # they reach the level in different gaps of the grid


def evidence(*, placed: bool, early: float = 1.0) -> Evidence:
    found = fixture_evidence("table16", world=World(learns=LEARNS, noise=0.0, placed=placed, early=early))
    return replace(found, slots=[slot for slot in found.slots if slot.run.group == "frontier"])


def truth(arm: str, task: str, seed: int) -> float:
    """The rise on text at the level, from the formulas of the world."""
    learned = LEARNS[arm] * (1 + 0.02 * World().normal("learns", task, str(seed)))
    return TEXT[task] * (1 - math.sqrt(1 - 0.75 / learned)) ** 2


def read(found: Evidence, measure: str, arm: str, task: str, seed: int) -> float:
    (each,) = found.measure(measure, found.select("frontier", method=arm, task=task, seed=str(seed)))
    return each.value


def off(found: Evidence, measure: str = "scale/text", *, early: float = 1.0) -> float:
    """The largest relative error of a measured rise."""
    errors = []
    for (arm, task), seed in product(product(LEARNS, TEXT), (42, 100, 2024)):
        errors.append(abs(read(found, measure, arm, task, seed) / (early * truth(arm, task, seed)) - 1))
    return max(errors)


def test_the_measured_point_makes_what_was_forgotten_exact() -> None:
    assert off(evidence(placed=False)) > 0.01
    found = evidence(placed=True)
    assert off(found) < 0.005
    lora, hip = (table16.build(found).cell(name, "Text rise, ratio to LoRA").value for name in ("LoRA", "HiP-LoRA"))
    assert lora == pytest.approx(1)
    mean = [sum(truth(arm, "gsm8k", seed) for seed in (42, 100, 2024, 1, 2, 3)) for arm in ("hip", "lora")]
    assert hip == pytest.approx(mean[0] / mean[1], rel=0.01)


def test_along_the_training_what_was_forgotten_is_read_between_its_snapshots() -> None:
    assert off(evidence(placed=True, early=1.3), "fraction/text", early=1.3) < 0.07


def test_an_adapter_that_never_reaches_the_level_is_read_where_it_has_learned_most() -> None:
    """Its values that count everyone are from there; at the level it has none."""
    found = fixture_evidence("table16", world=World(learns={"hip": 0.5}, noise=0.0))
    for task, seed in product(TEXT, (42, 100, 2024)):
        hip, lora = ({way: read(found, f"{way}/text", arm, task, seed) for way in WAYS} for arm in ("hip", "lora"))
        assert hip["any"] == pytest.approx(TEXT[task])
        assert math.isnan(hip["scale"])
        assert math.isnan(hip["fraction"])
        assert lora["any"] == lora["scale"] < TEXT[task] / 2


def test_figure_7_draws_only_the_points_that_all_adapters_have() -> None:
    dots = [each for each in figure7.build(evidence(placed=True)).dots if each.panel == figure7.FRONTIER]
    counts = Counter(each.series for each in dots)
    assert counts["HiP-LoRA"] == len(SCALES) + 1
    assert all(each.n == each.n_expected for each in dots)
