"""Options of scoring that all benchmarks share, without torch; each benchmark has options of its own."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from hiplora.config import Bookkeeping, Generation, Neutral, Options, Positive, Seed


class Evaluation(Options):
    """Options of the section ``evaluation``. ``limit`` is the number of items of each benchmark; null takes all.

    ``take`` says which ones: the first of the file, or those that a hash of their ids draws. The files of real
    benchmarks are sorted, and the first items of MMLU are a single subject. Every other number of items obeys it too.
    ``likelihood_only`` scores only the gold answer to each item: nothing is generated, no other option is scored.
    ``text_tokens`` is the number of tokens read of each general text; the first token of every window is not scored.
    ``seed`` seeds sampled completions.
    """

    group: ClassVar[str] = "evaluation"

    splits: Literal["test", "validation"]
    batch_tokens: Annotated[Positive, Bookkeeping]
    text_tokens: Annotated[int, Field(ge=2, le=10**9)]
    limit: Positive | None
    seed: Annotated[Seed, Generation]
    take: Annotated[Literal["first", "drawn"], Neutral("first")] = "first"
    likelihood_only: Annotated[bool, Neutral(False)] = False
