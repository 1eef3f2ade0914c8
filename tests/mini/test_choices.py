"""The multiple-choice benchmarks: right answers, fair options, nothing learnt in advance."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from hiplora.mini import science, world
from hiplora.mini.facts import countries
from tests.mini.helpers import Row, mentions, read, training_texts

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
    assert min(counts.values()) >= 20


def test_no_training_text_mentions_a_held_out_country(folder: Path) -> None:
    """Stronger than asked: not the country together with its capital, but the country at all."""
    longer = [country.name for country in countries() if world.assigned().get(country.name) == "train"]
    texts = [text for text in training_texts(folder) if any(letter.isupper() for letter in text)]
    for split in ("validation", "test"):
        for country in world.members(split):
            name = country.name.removeprefix("the ")
            found = [text for text in texts if name in text]
            masked = [_without(text, [other for other in longer if name in other]) for text in found]
            assert not [text for text in masked if mentions(text, name)], name


def _without(text: str, names: list[str]) -> str:
    for name in names:
        text = text.replace(name.removeprefix("the "), "")
    return text


def test_no_training_text_has_a_held_out_world_fact(folder: Path) -> None:
    texts = training_texts(folder)
    for split in ("validation", "test"):
        for fact in world.facts(split):
            subject = fact.subject.removeprefix("the ")
            near = [text for text in texts if subject in text and not any(o in text for o in _longer(subject))]
            assert not [text for text in near if mentions(text, subject) and mentions(text, fact.value)], fact


def _longer(name: str) -> list[str]:
    names = [country.name.removeprefix("the ") for country in countries()]
    return [other for other in names if name in other and name != other]


def test_no_science_question_is_about_something_seen_in_training(folder: Path) -> None:
    trained = science.selected("train")
    known = {question.group for question in trained}
    texts = training_texts(folder)
    for split in ("validation", "test"):
        for question in science.selected(split):
            assert question.group not in known
            assert not [text for text in texts if question.stem in text and question.hint in text], question
            thing = (
                question.group.split(" ", 1)[-1] if question.group.startswith(("a ", "an ", "the ")) else question.group
            )
            near = [text for text in texts if thing in text]
            assert not [text for text in near if mentions(text, thing) and mentions(text, question.right)], question


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
