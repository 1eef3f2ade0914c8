"""The sequences of a row: a prompt, which is read, and an answer, which is predicted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Encoded:
    """Token ids of a prompt and of the answer after it, which is learned or scored.

    The last token is not read, because what it predicts is not needed: a one-token answer costs nothing beyond its
    prompt. Without a prompt, the answer's first token is not predicted.
    """

    prompt: list[int]
    answer: list[int]

    @property
    def tokens(self) -> int:
        """Length of prompt and answer."""
        return len(self.prompt) + len(self.answer)

    @property
    def inputs(self) -> int:
        """Number of tokens that are read."""
        return self.tokens - 1

    @property
    def path(self) -> list[int]:
        """The tokens that are read."""
        return (self.prompt + self.answer)[:-1]

    @property
    def first(self) -> int:
        """Index into ``path`` of the token that predicts the first target: the last one of the prompt."""
        return max(len(self.prompt) - 1, 0)

    @property
    def targets(self) -> list[int]:
        """The tokens that are predicted, by ``path[first:]``."""
        return (self.prompt + self.answer)[self.first + 1 :]


def common_prefix(sequences: Sequence[list[int]]) -> int:
    """The length of the longest common prefix of all sequences; that of the smallest and the largest list suffices."""
    least, greatest = min(sequences), max(sequences)
    pairs = enumerate(zip(least, greatest, strict=False))
    return next((index for index, (one, other) in pairs if one != other), min(len(least), len(greatest)))
