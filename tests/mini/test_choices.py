"""The multiple-choice benchmarks: right answers, fair options."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from hiplora.mini.facts import countries
from tests.mini.helpers import Row, read

SPLITS = ["mmlu/validation", "mmlu/test", "scienceqa/validation", "scienceqa/test"]


@pytest.mark.parametrize("name", [*SPLITS, "scienceqa/train"])
def test_options_are_distinct_and_the_index_is_in_range(folder: Path, name: str) -> None:
    for row in read(folder, name):
        assert len({choice.lower() for choice in row["choices"]}) == len(row["choices"]), row
        assert 0 <= row["answer"] < len(row["choices"])
        assert 2 <= len(row["choices"]) <= 5


@pytest.mark.parametrize("name", SPLITS)
def test_answer_index_is_balanced(folder: Path, name: str) -> None:
    by_size: dict[int, Counter[int]] = {}
    for row in read(folder, name):
        by_size.setdefault(len(row["choices"]), Counter())[row["answer"]] += 1
    for size, counts in by_size.items():
        expected = counts.total() / size
        assert all(abs(counts[index] - expected) <= max(3, 0.25 * expected) for index in range(size)), (size, counts)


def accuracy(rows: list[Row], pick: Callable[[list[int]], int]) -> float:
    """Share of items whose answer has the length that `pick` chooses; ties count in part."""
    total = 0.0
    for row in rows:
        lengths = [len(choice) for choice in row["choices"]]
        chosen = [index for index, length in enumerate(lengths) if length == pick(lengths)]
        total += (row["answer"] in chosen) / len(chosen)
    return total / len(rows)


@pytest.mark.parametrize("name", SPLITS)
def test_length_gives_nothing_away(folder: Path, name: str) -> None:
    rows = read(folder, name)
    chance = sum(1 / len(row["choices"]) for row in rows) / len(rows)
    assert abs(accuracy(rows, max) - chance) < 0.10
    assert abs(accuracy(rows, min) - chance) < 0.10


def test_subjects_of_mmlu_are_of_similar_size(folder: Path) -> None:
    counts = Counter(row["subject"] for row in read(folder, "mmlu/test"))
    assert len(counts) == 7
    assert min(counts.values()) >= 25


def test_every_world_fact_of_the_benchmark_is_in_the_table(folder: Path) -> None:
    """The rows are read back with nothing but the table: the chosen option is true and the others are false."""
    table = {country.name: country for country in countries()}
    checks: dict[str, Callable[[str, str], bool]] = {
        "capitals": lambda stem, option: table[between(stem, "The capital of ", " is")].capital == option,
        "countries": lambda stem, option: table[option].capital == between(stem, "", " is the capital of"),
        "continents": lambda stem, option: (
            table[lowered(between(stem, "", " is a country in"), table)].continent == option
        ),
        "currencies": lambda stem, option: table[between(stem, "The currency of ", " is the")].currency == option,
        "languages": lambda stem, option: table[between(stem, "The main language of ", " is")].language == option,
        "borders": lambda stem, option: (
            option in table[lowered(between(stem, "", " shares a border with"), table)].neighbours
        ),
    }
    for name in ("mmlu/validation", "mmlu/test"):
        for row in read(folder, name):
            if row["subject"] in checks:
                truth = [checks[row["subject"]](row["question"], choice) for choice in row["choices"]]
                assert truth == [index == row["answer"] for index in range(4)], row


def between(text: str, before: str, after: str) -> str:
    assert text.startswith(before)
    assert text.endswith(after)
    return text[len(before) : -len(after)]


def lowered(name: str, table: dict) -> str:
    return name if name in table else name[0].lower() + name[1:]
