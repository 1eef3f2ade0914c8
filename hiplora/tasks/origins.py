"""The data sets that the project names: their place on the Hub, their columns, and what is validation in them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

from hiplora.errors import UserError
from hiplora.tasks.columns import Check, anything, index, optional_text, options, solution, text, text_or_blank


@dataclass(frozen=True)
class Origin:
    """A data set's place on the Hub, what its columns must hold, and what is validation where no split is called so.

    That is the held-out part of train, which the column ``held_out_by`` decides, or the split ``validation``. Without
    a repository it is not on the Hub, and only there where a folder holds it. The rows of a general text are read as
    one stream, unless they stand ``apart``: then each is a window of its own, as it was sampled.
    """

    repository: str | None
    columns: Mapping[str, Check]
    subset: str | None = None
    held_out_by: str | None = None
    validation: str | None = None
    apart: bool = False

    @property
    def hub_id(self) -> str:
        """Its repository. Raises UserError where it has none."""
        if self.repository is None:
            raise UserError("Text sampled from the backbone is not on the Hub; type data=mini, or leave it out.")
        return self.repository


INSTRUCTIONS = {"instruction": text, "input": optional_text, "output": text_or_blank}
PROBLEM = {"task_id": text, "prompt": text, "canonical_solution": text, "test": text, "entry_point": text}
CHOICE = {"choices": options, "answer": index}
ORIGINS = {
    "gsm8k": Origin("openai/gsm8k", {"question": text, "answer": solution}, subset="main", held_out_by="question"),
    "mmlu": Origin("cais/mmlu", {"question": text, "subject": text, **CHOICE}, subset="all", validation="dev"),
    "scienceqa": Origin(
        "derek-thomas/ScienceQA", {"image": anything, "question": text, **CHOICE, "hint": optional_text}
    ),
    "humaneval": Origin("openai/openai_humaneval", PROBLEM),
    "codealpaca": Origin("sahil2801/CodeAlpaca-20k", INSTRUCTIONS, held_out_by="instruction"),
    "alpaca": Origin("tatsu-lab/alpaca", INSTRUCTIONS, held_out_by="instruction"),
    "text": Origin("Salesforce/wikitext", {"text": text_or_blank}, subset="wikitext-2-raw-v1"),
    "text_sampled": Origin(None, {"text": text_or_blank}, apart=True),
}
HELD_OUT_PERCENT = 5


def held_out(text: str) -> bool:
    """Whether an item belongs to the held-out 5 %: decided by a hash of its text, so that no order matters."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") % 100 < HELD_OUT_PERCENT


@dataclass(frozen=True)
class Part:
    """Rows of one split as it lies there: all, or those that are held out, or those that are not."""

    split: str
    held_out: bool | None = None

    def __str__(self) -> str:
        """Its name in what identifies the data."""
        share = f"held-out {HELD_OUT_PERCENT} %"
        if self.held_out is None:
            return self.split
        return f"{self.split}'s {share}" if self.held_out else f"{self.split} without its {share}"


TEXTS = ("text", "text_sampled")  # general text; the second was sampled from the backbone
