"""What every operator gives on two fixed adapters: a number that moves needs a new ``version`` of the operator's class.

``HIPLORA_WRITE_GOLDEN=1 pytest tests/merging/test_golden_operators.py`` writes the numbers anew.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, get_args

import pytest
import torch

from hiplora.merging import CALIBRATIONS, OPERATORS, apply, configured, operator_class
from hiplora.merging.base import Operator
from hiplora.updates import LowRank

GOLDEN = Path(__file__).with_name("golden_operators.json")
WRITE = "HIPLORA_WRITE_GOLDEN"
SHAPES = {"q_proj": (24, 20), "v_proj": (8, 20), "o_proj": (20, 24)}
PRECISION = 1e-5  # of the norm: other machines add in another order


def cases() -> dict[str, tuple[str, dict[str, Any]]]:
    """Every operator behind every calibration; and alone with every other choice of its options."""
    found = {f"{name} {c}": (name, {"calibration": c}) for name in OPERATORS for c in CALIBRATIONS}
    for name in OPERATORS:
        for option, field in operator_class(name).model_fields.items():
            choices = [x for x in get_args(field.annotation) if isinstance(x, str) and x != field.default]
            if option != "calibration":
                found |= {f"{name} {option}={choice}": (name, {option: choice}) for choice in choices}
            if option == "weights":
                found[f"{name} weights"] = (name, {"weights": (1.0, -0.5)})
    return found


def fixed(seed: int, rank: int) -> dict[str, LowRank]:
    g = torch.Generator().manual_seed(seed)
    return {
        name: LowRank(torch.randn(m, rank, generator=g), torch.randn(rank, n, generator=g))
        for name, (m, n) in SHAPES.items()
    }


def measured(operator: Operator) -> dict[str, list[float]]:
    """Frobenius norm of every merged matrix, and its inner product with a fixed matrix of norm 1."""
    merged = apply(operator, [fixed(11, 2), fixed(12, 3)], generator=torch.Generator().manual_seed(13)).updates
    numbers = {}
    for i, (name, update) in enumerate(merged.items()):
        delta = update.dense().double()
        probe = torch.randn(delta.shape, generator=torch.Generator().manual_seed(100 + i), dtype=torch.float64)
        numbers[name] = [float(delta.norm()), float((delta * probe).sum() / probe.norm())]
    return numbers


def made_by(operator: Operator) -> dict[str, int]:
    """What must be raised when the numbers move on purpose."""
    return {"version": operator.version, **operator.more_identity()}


def close(numbers: dict[str, list[float]], golden: dict[str, list[float]]) -> bool:
    """Whether all numbers are the stored ones, to a share of the matrix's norm."""
    pairs = [(name, i) for name in golden for i in range(2)]
    return all(abs(numbers[name][i] - golden[name][i]) <= PRECISION * golden[name][0] for name, i in pairs)


@pytest.fixture(scope="module")
def golden():
    """The stored numbers; where they are written, what this run measures is left there."""
    if not os.environ.get(WRITE):
        yield json.loads(GOLDEN.read_text())
        return
    known = json.loads(GOLDEN.read_text()) if GOLDEN.is_file() else {}
    fresh: dict[str, Any] = {case: known.get(case) for case in cases()}
    yield fresh
    lines = (f"  {json.dumps(case)}: {json.dumps(fresh[case])}" for case in fresh)
    GOLDEN.write_text("{\n" + ",\n".join(lines) + "\n}\n")


@pytest.mark.parametrize("case", cases())
def test_no_number_moves_unless_the_version_does(case, golden):
    name, options = cases()[case]
    operator = configured(name, **options)
    numbers, owner = measured(operator), made_by(operator)
    if os.environ.get(WRITE):
        golden[case] = owner | {"numbers": numbers}
        return
    assert case in golden, f"{case} is new; set {WRITE}=1 and run this file, which writes its numbers"
    stored = {key: value for key, value in golden[case].items() if key != "numbers"}
    if stored != owner:
        pytest.fail(f"{case} is of {owner}, its stored numbers of {stored}; set {WRITE}=1 to write them anew")
    owned = f"{type(operator).__name__}.version"
    drawn = " (or DRAWS or AFTER_RANDOM, if what is drawn changed)" if "draws" in owner else ""
    if not close(numbers, golden[case]["numbers"]):
        pytest.fail(
            f"{case} gives other numbers than before. If that is meant, raise {owned}{drawn}, "
            f"so that records of before are not taken for new ones, and set {WRITE}=1 to write the numbers anew; else "
            "the change has broken it."
        )


def test_every_stored_case_is_still_there(golden):
    if not os.environ.get(WRITE):
        assert set(golden) == set(cases())


def test_a_moved_number_is_seen():
    numbers = measured(configured("ties"))
    moved = {name: [norm, inner + 2 * PRECISION * norm] for name, (norm, inner) in numbers.items()}
    assert close(numbers, numbers)
    assert not close(moved, numbers)
