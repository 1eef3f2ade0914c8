"""The word problems: read back by the templates that they were made from, and solved by formulas of the tests' own."""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import product
from pathlib import Path

import pytest

from hiplora.mini.problems.templates import recognised, templates
from tests.mini.helpers import read

# What each kind of problem asks for, written down a second time as one formula of its numbers.
FORMULAS: dict[str, Callable[..., float]] = {
    "join_result": lambda a, b: a + b,
    "join_change": lambda a, b: b - a,
    "join_start": lambda a, b: b - a,
    "separate_result": lambda a, b: a - b,
    "separate_change": lambda a, b: a - b,
    "separate_start": lambda a, b: a + b,
    "whole": lambda a, b: a + b,
    "part": lambda a, b: a - b,
    "difference": lambda a, b: a - b,
    "larger": lambda a, b: a + b,
    "smaller": lambda a, b: a - b,
    "groups": lambda a, b: a * b,
    "measured": lambda a, b: a / b,
    "shared": lambda a, b: a / b,
    "times_larger": lambda a, b: a * b,
    "times_smaller": lambda a, b: a / b,
    "plus_plus": lambda a, b, c: a + b + c,
    "plus_minus": lambda a, b, c: a + b - c,
    "plus_times": lambda a, b, c: (a + b) * c,
    "plus_by": lambda a, b, c: (a + b) / c,
    "minus_plus": lambda a, b, c: a - b + c,
    "minus_minus": lambda a, b, c: a - b - c,
    "minus_times": lambda a, b, c: (a - b) * c,
    "minus_by": lambda a, b, c: (a - b) / c,
    "times_plus": lambda a, b, c: a * b + c,
    "times_minus": lambda a, b, c: a * b - c,
    "times_times": lambda a, b, c: a * b * c,
    "times_by": lambda a, b, c: a * b / c,
    "by_plus": lambda a, b, c: a / b + c,
    "by_minus": lambda a, b, c: a / b - c,
    "by_times": lambda a, b, c: a / b * c,
    "by_by": lambda a, b, c: a / b / c,
}
SPLITS = ["train", "validation", "test"]


def read_back(question: str) -> tuple[str, list[int]]:
    """The kind of a problem and its numbers a, b, c."""
    (found,) = recognised(question)
    return found


@pytest.mark.parametrize("split", SPLITS)
def test_answers(folder: Path, split: str) -> None:
    for row in read(folder, f"gsm8k/{split}"):
        key, numbers = read_back(row["question"])
        answer = int(row["answer"].rsplit("#### ", 1)[1])
        assert answer == FORMULAS[key](*numbers), row
        assert answer >= 2


@pytest.mark.parametrize("split", SPLITS)
def test_every_calculation_is_right(folder: Path, split: str) -> None:
    """As in GSM8K the calculator's marks repeat what the sentence says."""
    operations = {"+": int.__add__, "-": int.__sub__, "*": int.__mul__, "/": int.__floordiv__}
    for row in read(folder, f"gsm8k/{split}"):
        *lines, last = row["answer"].splitlines()
        results = []
        for line in lines:
            match = re.search(r"(\d+) (.) (\d+) = <<(\d+)(.)(\d+)=(\d+)>>(\d+)", line)
            assert match, line
            left, sign, right, *again, marked, result = match.groups()
            assert again == [left, sign, right]
            assert marked == result == str(operations[sign](int(left), int(right)))
            results.append(result)
        assert last == f"#### {results[-1]}"


def test_the_kinds_are_all_there_and_two_problems_of_three_have_one_step(folder: Path) -> None:
    """Every type of one-step problem, and every pair of operations."""
    assert {template.kind for template in templates()} == set(FORMULAS)
    pairs = [
        tuple(step.split()[1] for step, _ in template.steps) for template in templates() if len(template.steps) == 2
    ]
    assert sorted(pairs) == sorted(product("+-*/", repeat=2))
    for split in ("validation", "test"):
        rows = read(folder, f"gsm8k/{split}")
        assert {read_back(row["question"])[0] for row in rows} == set(FORMULAS)
        one_step = sum(row["answer"].count("\n") == 1 for row in rows)
        assert 0.6 < one_step / len(rows) < 0.75
