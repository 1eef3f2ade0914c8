"""The data sets that the project uses: their repositories on the Hub, their columns, and their validation splits."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

from hiplora.errors import UserError
from hiplora.tasks.columns import Check, anything, index, optional_text, options, solution, text, text_or_blank


@dataclass(frozen=True)
class Origin:
    """A data set's repository on the Hub, the checks of its columns, and its validation split.

    If no split is named ``validation``, the held-out part of train is used, chosen by a hash of the column
    ``held_out_by``, or the split that the field ``validation`` names. Without a repository the data set is not on the
    Hub and exists only in folders that contain it. The rows of a general text are read as one stream; with ``apart``,
    each row is a window of its own, as it was sampled.
    """

    repository: str | None
    columns: Mapping[str, Check]
    subset: str | None = None
    held_out_by: str | None = None
    validation: str | None = None
    apart: bool = False

    @property
    def hub_id(self) -> str:
        """The id of its repository. Raises UserError if it has none."""
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
    """Whether an item belongs to the held-out 5 %, by a hash of its text, so that the order does not matter."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") % 100 < HELD_OUT_PERCENT


@dataclass(frozen=True)
class Part:
    """Rows of a stored split: all, the held-out ones (``held_out`` True), or the others (False)."""

    split: str
    held_out: bool | None = None

    def __str__(self) -> str:
        """Its name in the identity of the data."""
        share = f"held-out {HELD_OUT_PERCENT} %"
        if self.held_out is None:
            return self.split
        return f"{self.split}'s {share}" if self.held_out else f"{self.split} without its {share}"


TEXTS = ("text", "text_sampled")  # general text; the second was sampled from the backbone
