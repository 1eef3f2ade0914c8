"""Facts from the tables that the edit set is made from. Sources and licences: facts/PROVENANCE.md."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from hiplora.mini import facts as mini

FOLDER = Path(__file__).parent / "facts"


@dataclass(frozen=True)
class Fact:
    """``text`` is the subject as a sentence names it; ``wrong`` are values of the answer's type that are false for it.

    The new answer is drawn from ``wrong``, where a value occurs as often as there are subjects that have it.
    """

    text: str
    answers: tuple[str, ...]
    wrong: tuple[str, ...]

    @property
    def subject(self) -> str:
        return self.text.removeprefix("the ")


@dataclass(frozen=True)
class Place:
    """A country or territory; a field is empty if the sources did not agree on one value."""

    name: str
    capital: str
    continent: str
    currency: str
    language: str
    calling_code: str
    tld: str
    spoken: tuple[str, ...]


@cache
def rows(name: str) -> tuple[dict[str, str], ...]:
    with (FOLDER / f"{name}.csv").open(encoding="utf-8", newline="") as handle:
        return tuple(csv.DictReader(handle))


@cache
def places() -> tuple[Place, ...]:
    """The places of the mini-benchmarks' table, which has no territories, and of ours, which adds them."""
    fields = ("name", "capital", "continent", "currency", "language", "calling_code", "tld")
    ours = [
        Place(**{field: row[field] for field in fields}, spoken=tuple(filter(None, row["spoken"].split(";"))))
        for row in rows("places")
    ]
    theirs = [
        Place(**{field: getattr(country, field) for field in fields}, spoken=country.spoken)
        for country in mini.countries()
    ]
    return (*theirs, *ours)


def alike(one: str, other: str) -> bool:
    """Whether one name contains the other, ignoring case, as Guinea-Bissau contains Guinea."""
    return one.casefold() in other.casefold() or other.casefold() in one.casefold()


def named(pairs: Iterable[tuple[str, str]]) -> list[Fact]:
    """Facts whose answers are names; the other subjects' answers are wrong, except those :func:`alike` the right one.

    A subject whose own name is alike to its answer is left out.
    """
    known = [(text, answer) for text, answer in pairs if answer and not alike(text.removeprefix("the "), answer)]
    return [
        Fact(text, (answer,), tuple(other for _, other in known if not alike(other, answer))) for text, answer in known
    ]


def coded(pairs: Iterable[tuple[str, str]]) -> list[Fact]:
    """Facts whose answers are codes; every different answer is wrong, even if one code contains another."""
    known = [(text, answer) for text, answer in pairs if answer]
    return [Fact(text, (answer,), tuple(other for _, other in known if other != answer)) for text, answer in known]


def dated(rows: Iterable[tuple[str, str, Sequence[int]]], *, near: int = 3, far: int = 60) -> list[Fact]:
    """Facts whose answers are years; wrong are other subjects' years, ``near`` to ``far`` away and within the bounds.

    ``rows`` holds (subject, year, bounds); a subject without a wrong year is left out.
    """
    known = [(text, year, bounds) for text, year, bounds in rows if year]
    facts = []
    for text, year, (low, high) in known:
        wrong = [
            other for _, other, _ in known if near <= abs(int(other) - int(year)) <= far and low <= int(other) <= high
        ]
        if wrong:
            facts.append(Fact(text, (year,), tuple(wrong)))
    return facts
