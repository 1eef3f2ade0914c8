"""Families of small functions for the training corpus, read from facts/families.csv.

Every value makes another function: `{n}`, `{w}`, `{c}` … in a family's name, purpose and body stand for the fields of
a value. No function behaves like one of the benchmark.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from hiplora.mini.facts import rows

Value = dict[str, str]
WORDS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"]
LETTERS = "bcdghklmnprstwz"
MARKS = [
    "comma",
    ",",
    "semicolon",
    ";",
    "hyphen",
    "-",
    "slash",
    "/",
    "colon",
    ":",
    "underscore",
    "_",
    "bar",
    "|",
    "star",
    "*",
]
KEYS = ["name", "price", "title", "color", "size", "city", "score", "year", "weight", "email"]
GREETINGS = ["Hello", "Welcome", "Goodbye", "Thanks", "Congratulations", "Sorry", "Cheers", "Greetings"]
TAGS = ["b", "i", "p", "h1", "li", "td", "code", "span"]
RATES = (
    ("feet", "inches", 12),
    ("yards", "feet", 3),
    ("hours", "minutes", 60),
    ("days", "hours", 24),
    ("weeks", "days", 7),
    ("meters", "centimeters", 100),
    ("kilometers", "meters", 1000),
    ("dozens", "pieces", 12),
    ("years", "months", 12),
    ("dollars", "cents", 100),
    ("pounds", "ounces", 16),
    ("gallons", "quarts", 4),
    ("minutes", "seconds", 60),
    ("miles", "feet", 5280),
    ("bytes", "bits", 8),
    ("centuries", "years", 100),
)


@dataclass(frozen=True)
class Instruction:
    """One function of the training corpus; `body` is source without indentation."""

    name: str
    parameters: str
    purpose: str
    body: str

    @property
    def anonymous(self) -> str:
        """The body without the name of its parameter: equal for functions that do the same under two names."""
        return re.sub(rf"\b{self.parameters}\b", "x", self.body)


def _numbers(low: int, high: int) -> list[Value]:
    return [{"n": str(number), "w": WORDS[number]} for number in range(low, high + 1)]


def _fields(name: str, values: Sequence[str]) -> list[Value]:
    return [{name: value} for value in values]


def _values() -> dict[str, list[Value]]:
    partners = LETTERS[4:] + LETTERS[:4]
    return {
        "numbers": _numbers(3, 12),
        "numbers from 4": _numbers(4, 12),
        "digits": _numbers(1, 9),
        "letters": _fields("c", LETTERS),
        "letter pairs": [{"c": c, "d": d} for c, d in zip(LETTERS, partners, strict=True)],
        "marks": [{"w": word, "c": mark} for word, mark in zip(MARKS[::2], MARKS[1::2], strict=True)],
        "keys": _fields("k", KEYS),
        "greetings": [{"g": word, "v": word.lower()} for word in GREETINGS],
        "tags": _fields("t", TAGS),
        "rates": [{"f": f"{a}_to_{b}", "a": a, "b": b, "r": str(rate)} for a, b, rate in RATES],
    }


def members() -> Iterator[Instruction]:
    """All functions of all families."""
    values = _values()
    for row in rows("families.csv"):
        for value in values[row["values"]]:
            yield Instruction(
                name=row["name"].format(**value),
                parameters=row["parameters"].format(**value),
                purpose=row["purpose"].format(**value),
                body=row["body"].format(**value).replace("\\n", "\n"),
            )
