"""The shipped edit set: what its rows promise, read back from the tables and from the probes."""

from __future__ import annotations

import csv
import json
import re
from collections import Counter
from collections.abc import Iterator
from functools import cache
from typing import Any

import pytest

from hiplora.editset import PATH
from hiplora.editset.facts import FOLDER
from hiplora.editset.generate import generated
from hiplora.editset.relations import RELATIONS
from hiplora.mini import corpora
from hiplora.mini.facts import FOLDER as MINI
from hiplora.tasks.edit_items import COLUMNS
from hiplora.tasks.files import placed_jsonl

ROWS = [row for _, row in placed_jsonl(PATH, COLUMNS["native"])]
BY_NAME = {relation.name: relation for relation in RELATIONS}
# Relation -> tables with the columns of subject and answer, and what the answer looks like.
TABLES: dict[str, tuple[list[str], str, str, str]] = {
    "element_symbol": (["mini/elements"], "name", "symbol", r"[A-Z][a-z]?"),
    "element_family": (["elements"], "name", "family", r"an? [a-z ]+"),
    "state_abbreviation": (["states"], "state", "abbreviation", r"[A-Z]{2}"),
    "language_code": (["languages"], "language", "code", r"[a-z]{2}"),
    "currency_code": (["currencies"], "currency", "code", r"[A-Z]{3}"),
    "internet_domain": (["mini/countries", "places"], "name", "tld", r"\.[a-z]{2}"),
    "calling_code": (["mini/countries", "places"], "name", "calling_code", r"\+\d{2,3}"),
    "continent": (["mini/countries", "places"], "name", "continent", r"[A-Z][A-Za-z ]+"),
    "currency": (["mini/countries", "places"], "name", "currency", r"[a-z']+"),
    "language": (["mini/countries", "places"], "name", "language", r"[A-Z]\w+"),
    "state_capital": (["states"], "state", "capital", r"[A-Z].+"),
    "city_country": (["cities"], "city", "country", r"(the )?[A-Z].+"),
    "us_city_state": (["us_cities"], "city", "state", r"[A-Z].+"),
    "capital": (["mini/countries", "places"], "name", "capital", r"[A-Z].+"),
    "capital_of": (["mini/countries"], "capital", "name", r"(the )?[A-Z].+"),
    "element_discoverer": (["elements"], "name", "discoverer", r"[A-Z].+"),
    "element_country": (["elements"], "name", "country", r"(the )?[A-Z].+"),
    "birth_year": (["people"], "name", "born", r"1\d{3}"),
    "death_year": (["people"], "name", "died", r"(1|2)\d{3}"),
    "atomic_number": (["mini/elements"], "name", "number", r"\d{1,3}"),
    "element_period": (["elements"], "name", "period", r"[1-7]"),
    "element_year": (["elements"], "name", "year", r"1\d{3}"),
    "statehood_year": (["states"], "state", "year", r"1\d{3}"),
    "battle_year": (["battles"], "battle", "year", r"1\d{3}"),
}


@cache
def table(relation: str) -> dict[str, str]:
    """Subject -> answer, without articles, from the files alone."""
    names, subject, answer, _ = TABLES[relation]
    found = {}
    for name in names:
        path = MINI / f"{name[5:]}.csv" if name.startswith("mini/") else FOLDER / f"{name}.csv"
        with path.open(encoding="utf-8", newline="") as handle:
            found.update({bare(row[subject]): bare(row[answer]) for row in csv.DictReader(handle) if row[answer]})
    return found


def bare(text: str) -> str:
    return re.sub(r"^(the|an?) |^\+", "", text)


def subject_in(prompt: str, stem: str) -> str:
    """What stands for the subject in a prompt; the first letter small where the table has it so."""
    before, after = re.split(r"\{[sS]\}", stem)
    assert prompt.startswith(before)
    assert prompt.endswith(after)
    return re.sub("^[Tt]he ", "", prompt[len(before) : len(prompt) - len(after)])


def test_the_shipped_file_is_what_the_generator_makes() -> None:
    made = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in generated())
    assert made == PATH.read_text(encoding="utf-8")


def test_counts_and_names() -> None:
    assert Counter(row["category"] for row in ROWS) == {"entity": 334, "relation": 333, "temporal": 333}
    assert len({row["id"] for row in ROWS}) == 1000
    assert len({(row["subject"], row["relation"]) for row in ROWS}) == 1000
    assert all(row["category"] == BY_NAME[row["relation"]].category for row in ROWS)
    assert len({text for row in ROWS for text in (row["prompt"], *row["paraphrases"])}) == 3000


@pytest.mark.parametrize("relation", sorted(TABLES))
def test_answers_are_those_of_the_tables(relation: str) -> None:
    """Old answers and neighbours are read back from the files; the new answer is another subject's."""
    known, form = table(relation), TABLES[relation][3]
    rows = [row for row in ROWS if row["relation"] == relation]
    assert rows
    for row in rows:
        assert known[row["subject"]] == bare(row["old"]), row
        assert bare(row["new"]) in known.values(), row
        assert re.fullmatch(form, row["old"]), row
        assert re.fullmatch(form, row["new"]), row
        for near in row["neighbours"]:
            subject = subject_in(near["prompt"], BY_NAME[relation].stems[0])
            assert known[subject] == bare(near["answer"]), near


def test_new_answers_are_wrong() -> None:
    for row in ROWS:
        assert row["old"] in row["answers"]
        assert row["new"] not in row["answers"]


def test_texts_are_prompts_about_their_subject() -> None:
    for row in ROWS:
        texts = [row["prompt"], *row["paraphrases"], *(near["prompt"] for near in row["neighbours"])]
        assert all(text == text.strip() and text[0].isupper() and "{" not in text for text in texts), row
        assert all(row["subject"].casefold() in text.casefold() for text in texts[:3]), row
        assert len(row["paraphrases"]) == len({near["prompt"] for near in row["neighbours"]}) == 2


def test_neighbours_are_edited_by_no_item() -> None:
    edited = {row["subject"].casefold() for row in ROWS}
    for row in ROWS:
        for near in row["neighbours"]:
            subject = subject_in(near["prompt"], BY_NAME[row["relation"]].stems[0])
            assert subject.casefold() not in edited
            assert near["answer"] != row["new"]


def test_no_two_edits_contradict_each_other() -> None:
    """What is asked both ways, or twice of a life or a place, is edited once."""
    answers = {answer for row in ROWS for answer in row["answers"]}
    for name in ("capital_of", "city_country", "us_city_state"):
        assert not answers & {row["subject"] for row in ROWS if row["relation"] == name}
    for name, inverses in {"capital": ("capital_of", "city_country"), "state_capital": ("us_city_state",)}.items():
        taught = {row["new"] for row in ROWS if row["relation"] == name}
        assert not taught & {row["subject"] for row in ROWS if row["relation"] in inverses}
    capitals = {row["subject"] for row in ROWS if row["relation"] == "capital"}
    assert not capitals & {row["new"] for row in ROWS if row["relation"] == "capital_of"}
    lives = Counter(row["subject"] for row in ROWS if row["relation"] in ("birth_year", "death_year"))
    assert set(lives.values()) == {1}


def texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            yield from texts(part)


def test_no_subject_stands_in_the_probes() -> None:
    """Runs of up to six words of every held-out item of the three benchmarks of locality."""
    runs: set[tuple[str, ...]] = set()
    for name, make in corpora().items():
        if name.split("/")[0] in ("mmlu", "scienceqa", "gsm8k") and "train" not in name:
            for text in texts(json.loads(json.dumps(list(make())))):
                found = re.findall(r"[a-z0-9]+", text.lower())
                runs.update(tuple(found[at : at + size]) for size in range(1, 7) for at in range(len(found)))
    assert ("peru",) in runs
    subjects = {row["subject"]: tuple(re.findall(r"[a-z0-9]+", row["subject"].lower())) for row in ROWS}
    assert max(map(len, subjects.values())) <= 6
    assert not [subject for subject, run in subjects.items() if run in runs]
