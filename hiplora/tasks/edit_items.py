"""Facts to edit: the type of one item, and the schemas in which sets of items come.

native, as in EditSet-1K:
    {"id": "entity-0001", "category": "entity", "relation": "capital", "subject": "Peru",
     "prompt": "The capital of Peru is", "old": "Lima", "new": "Oslo", "answers": ["Lima"],
     "paraphrases": ["Peru's capital city is", …], "neighbours": [{"prompt": "The capital of Chile is",
     "answer": "Santiago"}, …]}
counterfact (Meng et al. 2022, arXiv 2202.05262):
    {"case_id": 0, "requested_rewrite": {"prompt": "The mother tongue of {} is", "relation_id": "P103",
     "target_new": {"str": "English"}, "target_true": {"str": "French"}, "subject": "Danielle Darrieux"},
     "paraphrase_prompts": […], "neighborhood_prompts": […]}      (the neighbours' answer is the true target)
zsre (Levy et al. 2017, in the version of Mitchell et al. 2022, arXiv 2110.11309):
    {"subject": "Watts Humphrey", "src": "What university did Watts Humphrey attend?", "rephrase": "…",
     "alt": "University of Michigan", "answers": ["Illinois"], "loc": "nq question: …", "loc_ans": "…"}
    Public harnesses disagree on the new answer of such an edit: ``target`` chooses ``alt`` or the first of ``answers``;
    the other one is the old answer.
An answer follows its prompt after one space; the two are encoded separately.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from hiplora.tasks.columns import Check, complaint, shown, text

Schema = Literal["native", "counterfact", "zsre"]
Target = Literal["alt", "answers"]
CATEGORIES = ("entity", "relation", "temporal")


@dataclass(frozen=True, kw_only=True)
class EditItem:
    """One fact to edit: after it, ``new`` should follow the prompt instead of ``old``.

    ``answers`` are all true answers if the edit is counterfactual, else empty. ``paraphrases`` ask for the same fact,
    ``neighbours`` (prompt, answer) for the same relation of subjects that are not edited. ``place`` is the file and
    line, or row, that it was read from.
    """

    id: str
    place: str
    category: str
    relation: str
    subject: str
    prompt: str
    old: str
    new: str
    answers: tuple[str, ...]
    paraphrases: tuple[str, ...]
    neighbours: tuple[tuple[str, str], ...]

    @property
    def sentence(self) -> str:
        """The edit as a statement."""
        return f"{self.prompt} {self.new}".rstrip(".") + "."


def following(answer: str) -> str:
    """An answer as it follows its prompt, with a space in front."""
    return f" {answer}"


def normalised(answer: str) -> str:
    """An answer without case, articles, punctuation and surplus spaces, for comparison.

    A number keeps its decimal point and sign. If nothing would be left, the text keeps all but its case.
    """
    words = re.sub(r"(?<=\d),(?=\d)", "", unicodedata.normalize("NFKC", answer).casefold())
    words = re.sub(r"[^\w\s.+-]|_|\.(?!\d)|[+-](?!\d)", "", words)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", words).split()) or answer.strip().casefold()


def _native(row: Mapping[str, Any], place: str, target: Target) -> EditItem:
    values = {name: row[name].strip() for name in ("id", "category", "relation", "subject", "prompt", "old", "new")}
    return EditItem(
        place=place,
        answers=tuple(row["answers"]),
        paraphrases=_stripped(row["paraphrases"]),
        neighbours=tuple((each["prompt"].strip(), each["answer"].strip()) for each in row["neighbours"]),
        **values,
    )


def _counterfact(row: Mapping[str, Any], place: str, target: Target) -> EditItem:
    asked = row["requested_rewrite"]
    true = asked["target_true"]["str"].strip()
    return EditItem(
        id=f"counterfact-{row['case_id']}",
        place=place,
        category="counterfact",
        relation=asked["relation_id"],
        subject=asked["subject"].strip(),
        prompt=asked["prompt"].replace("{}", asked["subject"]).strip(),
        old=true,
        new=asked["target_new"]["str"].strip(),
        answers=(true,),
        paraphrases=_stripped(row["paraphrase_prompts"]),
        neighbours=tuple((prompt, true) for prompt in _stripped(row["neighborhood_prompts"])),
    )


def _zsre(row: Mapping[str, Any], place: str, target: Target) -> EditItem:
    alternative, answers = row["alt"].strip(), _stripped(row["answers"])
    new, old = (alternative, answers[0]) if target == "alt" else (answers[0], alternative)
    return EditItem(
        id=f"zsre-{re.split('[^0-9]', place)[-1]}",
        place=place,
        category="zsre",
        relation=row["src"].strip(),
        subject=row["subject"].strip(),
        prompt=row["src"].strip(),
        old=old,
        new=new,
        answers=answers if target == "alt" else (),
        paraphrases=_stripped([row["rephrase"]]),
        neighbours=((row["loc"].strip(), row["loc_ans"].strip()),),
    )


def _stripped(texts: Sequence[str]) -> tuple[str, ...]:
    return tuple(each.strip() for each in texts)


def _texts(value: Any, item: Mapping[str, Any]) -> str | None:
    """A column that holds a list of one or more texts."""
    if isinstance(value, list) and value and not any(text(each, item) for each in value):
        return None
    return "which must be a list of one or more texts, none of them blank"


def _category(value: Any, item: Mapping[str, Any]) -> str | None:
    return None if value in CATEGORIES else f"which must be one of {', '.join(CATEGORIES)}"


def _number_or_text(value: Any, item: Mapping[str, Any]) -> str | None:
    return None if isinstance(value, int | str) else "which must be a number or text"


def _neighbours(value: Any, item: Mapping[str, Any]) -> str | None:
    if isinstance(value, list) and value and all(isinstance(each, dict) for each in value):
        wrong = next(filter(None, (complaint(each, {"prompt": text, "answer": text}) for each in value)), None)
        return wrong and f"of which one {wrong}"
    return 'which must be a list of objects such as {"prompt": "The capital of Chile is", "answer": "Santiago"}'


def _object(columns: Mapping[str, Check]) -> Check:
    """A column that holds an object of these columns."""

    def check(value: Any, item: Mapping[str, Any]) -> str | None:
        wrong = complaint(value, columns) if isinstance(value, dict) else "must be an object"
        return wrong and f"which {wrong}"

    return check


def _with_place(value: Any, item: Mapping[str, Any]) -> str | None:
    """A column that holds a prompt with {} in place of the subject."""
    wrong = text(value, item)
    return wrong or (None if "{}" in value else "which must be text with {} in place of the subject")


_ANSWER = _object({"str": text})
_REWRITE = {"prompt": _with_place, "relation_id": text, "target_new": _ANSWER, "target_true": _ANSWER, "subject": text}
COLUMNS: dict[Schema, Mapping[str, Check]] = {
    "native": {
        **dict.fromkeys(("id", "relation", "subject", "prompt", "old", "new"), text),
        "category": _category,
        "answers": _texts,
        "paraphrases": _texts,
        "neighbours": _neighbours,
    },
    "counterfact": {
        "case_id": _number_or_text,
        "requested_rewrite": _object(_REWRITE),
        "paraphrase_prompts": _texts,
        "neighborhood_prompts": _texts,
    },
    "zsre": {
        **dict.fromkeys(("subject", "src", "rephrase", "alt", "loc", "loc_ans"), text),
        "answers": _texts,
    },
}
ITEMS: dict[Schema, Callable[[Mapping[str, Any], str, Target], EditItem]] = {
    "native": _native,
    "counterfact": _counterfact,
    "zsre": _zsre,
}


def problem(item: EditItem) -> str | None:
    """Why an item is not a valid edit, as a phrase that follows its place; None if it is valid."""
    true = {normalised(answer) for answer in item.answers}
    if normalised(item.new) in {*true, normalised(item.old)}:
        return f"edits {shown(item.subject)} to {shown(item.new)}, which is one of its answers already"
    return None
