"""Reproducible choices: the same on every machine and every Python version.

Only `random.Random.random`, whose sequence the standard library guarantees, is drawn from; `shuffle` and `sample` may
change between versions, so they are written out here.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


def digest(*parts: object) -> int:
    """A 64-bit integer from the parts' text; equal parts give equal numbers on every machine."""
    text = "\x1f".join(str(part) for part in parts)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


def split_of(*key: object, test: float = 0.3, validation: float = 0.2) -> str:
    """The split that a fact belongs to, decided by its own text: it can never be in two."""
    position = digest("split", *key) / 2**64
    if position < test:
        return "test"
    return "validation" if position < test + validation else "train"


def by_hash(items: Sequence[T], *salt: object) -> list[T]:
    """The items in an order that depends on their text, not on their place."""
    return sorted(items, key=lambda item: digest("order", *salt, item))


class Draw:
    """A seeded source of choices."""

    def __init__(self, *seed: object) -> None:
        self._random = random.Random(digest("draw", *seed))

    def integer(self, low: int, high: int) -> int:
        """An integer from low to high, both included."""
        return low + int(self._random.random() * (high - low + 1))

    def pick(self, options: Sequence[T]) -> T:
        return options[self.integer(0, len(options) - 1)]

    def shuffled(self, options: Sequence[T]) -> list[T]:
        mixed = list(options)
        for last in range(len(mixed) - 1, 0, -1):
            other = self.integer(0, last)
            mixed[last], mixed[other] = mixed[other], mixed[last]
        return mixed

    def sample(self, options: Sequence[T], count: int) -> list[T]:
        return self.shuffled(options)[:count]
