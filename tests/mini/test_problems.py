"""The word problems, solved again from their text alone."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from hiplora.mini.problems.templates import templates
from tests.mini.helpers import read

# What each kind of problem asks for, written down a second time as one formula of its numbers.
FORMULAS: dict[str, Callable[..., float]] = {
    "one_more": lambda a: a + 1,
    "one_less": lambda a: a - 1,
    "one_each": lambda a: a,
    "gain": lambda a, b: a + b,
    "lose": lambda a, b: a - b,
    "together": lambda a, b: a + b,
    "rows": lambda a, b: a * b,
    "price": lambda a, b: a * b,
    "share": lambda a, b: a / b,
    "difference": lambda a, b: a - b,
    "spend": lambda a, b: a - b,
    "need": lambda a, b: a - b,
    "dozen": lambda a: 12 * a,
    "double": lambda a: a + a,
    "half": lambda a: a / 2,
    "two_more": lambda a: a + 2,
    "two_less": lambda a: a - 2,
    "ten_more": lambda a: a + 10,
    "ten_less": lambda a: a - 10,
    "birthday": lambda a: a + 1,
    "last_year": lambda a: a - 1,
    "page": lambda a: a + 1,
    "ten_years": lambda a: a + 10,
    "ten_each": lambda a: 10 * a,
    "wheels": lambda a: 2 * a,
    "legs": lambda a: 4 * a,
    "cents": lambda a: 5 * a,
    "twice_total": lambda a: 3 * a,
    "three_days": lambda a, b, c: a + b + c,
    "bus": lambda a, b, c: a - b + c,
    "share_found": lambda a, b, c: (a + b) / c,
    "farm": lambda a, b, c: a + b - c,
    "two_prices": lambda a, b, c: a + b * c,
    "teams": lambda a, b, c: (a + b) / c,
    "more_than": lambda a, b: 2 * a + b,
    "half_left": lambda a, b: (a - b) / 2,
}
SPLITS = ["train", "validation", "test"]


def pattern(text: str) -> re.Pattern[str]:
    """A template's text as a pattern that finds its numbers in a problem."""
    parts = re.split(r"\{(\w+)\}", text)
    found, seen = "", set()
    for index, part in enumerate(parts):
        if index % 2 == 0:
            found += re.escape(part)
        elif part in seen:
            found += f"(?P={part})"
        else:
            seen.add(part)
            found += f"(?P<{part}>\\d+)" if len(part) == 1 else f"(?P<{part}>[A-Za-z]+)"
    return re.compile(found)


PATTERNS = {template.key: pattern(template.text) for template in templates()}


def read_back(question: str) -> tuple[str, list[int]]:
    """The kind of a problem and its numbers a, b, c."""
    found = [(key, match) for key, regex in PATTERNS.items() if (match := regex.fullmatch(question))]
    assert len(found) == 1, question
    key, match = found[0]
    letters = sorted(name for name in match.groupdict() if len(name) == 1)
    return key, [int(match[letter]) for letter in letters]


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


def test_no_problem_returns_in_another_split(folder: Path) -> None:
    """Neither under other names and things, nor with its numbers swapped."""
    kinds = {
        split: {(key, *sorted(numbers)) for key, numbers in map(read_back, questions(folder, split))}
        for split in SPLITS
    }
    assert not kinds["train"] & kinds["test"]
    assert not kinds["train"] & kinds["validation"]
    assert not kinds["validation"] & kinds["test"]


def questions(folder: Path, split: str) -> list[str]:
    return [row["question"] for row in read(folder, f"gsm8k/{split}")]


def test_all_kinds_are_asked_and_most_in_one_step(folder: Path) -> None:
    rows = read(folder, "gsm8k/test")
    assert {read_back(row["question"])[0] for row in rows} == set(FORMULAS)
    one_step = sum(row["answer"].count("\n") == 1 for row in rows)
    assert 0.6 < one_step / len(rows) < 0.9
