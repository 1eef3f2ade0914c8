"""The frozen fact tables (facts/*.csv) as typed rows. Sources and licences: facts/PROVENANCE.md."""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

FOLDER = Path(__file__).parent / "facts"
TEST_CHUNKS = 19  # the first that hold 8,192 tokens (SmolLM2's)
TEST_SAMPLES = 64  # 64 × 128 = 8,192 tokens


@dataclass(frozen=True)
class Country:
    """An empty field means that the two sources did not agree on one value."""

    code: str
    name: str
    capital: str
    continent: str
    currency: str
    language: str
    calling_code: str
    tld: str
    neighbours: tuple[str, ...]
    disputed_neighbours: tuple[str, ...]  # named by one source only: neither right nor wrong
    spoken: tuple[str, ...]  # every language that is spoken there: none may serve as a wrong answer
    population: int


@dataclass(frozen=True)
class City:
    name: str
    country: str


@dataclass(frozen=True)
class Element:
    number: int
    symbol: str
    name: str
    kind: str


def rows(name: str) -> list[dict[str, str]]:
    with (FOLDER / name).open(encoding="utf-8", newline="") as handle:
        return list(csv.DictReader(handle))


def _listed(cell: str) -> tuple[str, ...]:
    return tuple(filter(None, cell.split(";")))


@lru_cache
def countries() -> tuple[Country, ...]:
    return tuple(
        Country(
            code=row["code"],
            name=row["name"],
            capital=row["capital"],
            continent=row["continent"],
            currency=row["currency"],
            language=row["language"],
            calling_code=row["calling_code"],
            tld=row["tld"],
            neighbours=_listed(row["neighbours"]),
            disputed_neighbours=_listed(row["disputed_neighbours"]),
            spoken=_listed(row["spoken"]),
            population=int(row["population"]),
        )
        for row in rows("countries.csv")
    )


@lru_cache
def cities() -> tuple[City, ...]:
    return tuple(City(row["city"], row["country"]) for row in rows("cities.csv"))


@lru_cache
def elements() -> tuple[Element, ...]:
    return tuple(
        Element(
            number=int(row["number"]),
            symbol=row["symbol"],
            name=row["name"],
            kind=row["kind"],
        )
        for row in rows("elements.csv")
    )


@lru_cache
def animals() -> tuple[tuple[str, str], ...]:
    """(animal, kind) pairs, such as ("salmon", "fish")."""
    return tuple((row["animal"], row["kind"]) for row in rows("animals.csv"))


@lru_cache
def words() -> tuple[tuple[str, str, str], ...]:
    """(relation, subject, object) of everyday language, such as ("opposite", "hot", "cold")."""
    return tuple((row["relation"], row["subject"], row["object"]) for row in rows("words.csv"))


@lru_cache
def things(group: str) -> tuple[tuple[str, str], ...]:
    """(thing, class) pairs of one hand-written list, such as ("milk", "liquid") of "state"."""
    return tuple((row["thing"], row["class"]) for row in rows("things.csv") if row["list"] == group)


def texts(split: str) -> list[dict[str, str]]:
    """General English text in chunks of about 2000 characters, each {"text": …}; validation follows on test."""
    return _parted("python_topics.json", split, TEST_CHUNKS)


def sampled_texts(split: str) -> list[dict[str, str]]:
    """Texts of 128 tokens sampled from the backbone SmolLM2-135M-Instruct, each {"text": …}."""
    return _parted("sampled_texts.json", split, TEST_SAMPLES)


def _parted(name: str, split: str, count: int) -> list[dict[str, str]]:
    """The first `count` texts of a file for test, the others for validation."""
    found = json.loads((FOLDER / name).read_text(encoding="utf-8"))
    return found[:count] if split == "test" else found[count:]
