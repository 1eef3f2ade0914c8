"""How a model is scored, whatever the benchmark: the options, without torch. A benchmark has options of its own."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from hiplora.config import Bookkeeping, Generation, Neutral, Options, Positive, Seed


class Evaluation(Options):
    """Options of the section ``evaluation``. ``limit`` takes the first items of each benchmark, null takes all.

    ``likelihood_only`` scores the gold answer to each item and nothing else: no text is written, no other option asked.
    ``text_tokens`` of general text are read; its first token has nothing before it and is not scored. ``seed`` draws
    completions.
    """

    group: ClassVar[str] = "evaluation"

    splits: Literal["test", "validation"]
    batch_tokens: Annotated[Positive, Bookkeeping]
    text_tokens: Annotated[int, Field(ge=2, le=10**9)]
    limit: Positive | None
    seed: Annotated[Seed, Generation]
    likelihood_only: Annotated[bool, Neutral(False)] = False
