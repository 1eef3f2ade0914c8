"""The word problems as templates, read from facts/problems.csv.

Their kinds were enumerated before any model was asked. One step: the types of Cognitively Guided Instruction (Carpenter
et al. 1999), which are join and separate with the result, the change or the start unknown, whole and part, comparison
with the difference, the larger or the smaller unknown, equal groups, measuring out and sharing, and multiplicative
comparison both ways (Greer 1992); two stories each. Two steps: every ordered pair of the four operations; one story
each. So two problems of three have one step.

One number of a problem is free, the others are 2 or 10, or 1 where the grammar allows: adding and taking away a few or
ten, doubling, halving and tens are the number facts that are learnt first. On sums and products within 20, the first
choice, LoRA learnt how frequent an answer is and nothing else (11 % of validation after 60 steps at 5e-4).

`{name}` and `{other}` are people, `{he}` and `{He}` go with `{name}`, `{item}` is a plural noun of NOUNS,
single letters are numbers drawn from their range or list. A step is an operation on earlier letters, whose result is
the next letter from p on, and the sentence that states it, with `{calc}` for the calculation. The last result is the
answer.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

from hiplora.mini.facts import rows

SHE = ("Anna", "Clara", "Emma", "Grace", "Irene", "Kate", "Maria", "Olivia", "Rosa", "Tina", "Wendy", "Julia")
HE = ("Ben", "David", "Frank", "Henry", "Jack", "Leo", "Nick", "Paul", "Sam", "Victor", "Oscar", "Martin")
PEOPLE = tuple([(name, "she") for name in SHE] + [(name, "he") for name in HE])
NOUNS = {
    "small": ["apples", "marbles", "stickers", "pencils", "shells", "coins", "cookies", "buttons", "stamps", "beads"],
    "goods": ["books", "notebooks", "candles", "mugs", "plants", "puzzles", "toys", "scarves", "lamps", "plates"],
    "food": ["muffins", "sandwiches", "cupcakes", "pies", "rolls", "pancakes", "bagels", "tarts"],
}
OPERATIONS: dict[str, Callable[[int, int], float]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
}


@dataclass(frozen=True)
class Template:
    kind: str
    text: str
    nouns: str
    numbers: dict[str, Sequence[int]]
    steps: tuple[tuple[str, str], ...]

    def solve(self, numbers: dict[str, int]) -> list[tuple[str, int]] | None:
        """(calculation in GSM8K's notation, result) per step; None where a result is not a whole number above one."""
        known, found = dict(numbers), []
        for letter, (expression, _) in zip("pqrs", self.steps, strict=False):
            left, sign, right = expression.split()
            first, second = (int(token) if token.isdigit() else known[token] for token in (left, right))
            value = OPERATIONS[sign](first, second)
            if value < 2 or value != int(value):
                return None
            known[letter] = int(value)
            found.append((f"{first} {sign} {second} = <<{first}{sign}{second}={int(value)}>>{int(value)}", int(value)))
        return found

    @property
    def pattern(self) -> re.Pattern[str]:
        """What a problem of this story looks like; its numbers, names and things are groups."""
        found, seen = "", set()
        for index, part in enumerate(re.split(r"\{(\w+)\}", self.text)):
            if index % 2 == 0:
                found += re.escape(part)
            elif part in seen:
                found += f"(?P={part})"
            else:
                seen.add(part)
                characters = r"\d+" if len(part) == 1 else "[A-Za-z]+"
                found += f"(?P<{part}>{characters})"
        return re.compile(found)


def _numbers(cell: str) -> dict[str, Sequence[int]]:
    """ "a 3-90; b 2,10" -> {"a": range(3, 91), "b": (2, 10)}."""
    found: dict[str, Sequence[int]] = {}
    for part in cell.split("; "):
        letter, values = part.split(" ")
        low, dash, high = values.partition("-")
        found[letter] = range(int(low), int(high) + 1) if dash else tuple(map(int, values.split(",")))
    return found


def _steps(cell: str) -> tuple[tuple[str, str], ...]:
    """ "a + b: They have {calc}. | p - c: …" -> (("a + b", "They have {calc}."), …)."""
    pairs = (part.split(": ", 1) for part in cell.split(" | "))
    return tuple((expression, sentence) for expression, sentence in pairs)


@lru_cache
def templates() -> tuple[Template, ...]:
    return tuple(
        Template(row["kind"], row["text"], row["nouns"], _numbers(row["numbers"]), _steps(row["steps"]))
        for row in rows("problems.csv")
    )


@lru_cache
def _patterns() -> tuple[tuple[str, re.Pattern[str]], ...]:
    return tuple((template.kind, template.pattern) for template in templates())


def recognised(text: str) -> Iterator[tuple[str, list[int]]]:
    """Kind and numbers a, b, c of every problem that a text contains."""
    for kind, pattern in _patterns():
        for match in pattern.finditer(text):
            letters = sorted(group for group in match.groupdict() if len(group) == 1)
            yield kind, [int(match[letter]) for letter in letters]
