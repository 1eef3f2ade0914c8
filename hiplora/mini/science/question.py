"""One science question, and how a list of them becomes rows in ScienceQA's columns."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from hiplora.mini.draw import digest, split_of
from hiplora.mini.facts import rows as table

WORDINGS = ("lecture", "lecture2", "lecture3")  # of the rule that stands in front of a question
SHARES = {"test": 0.3, "validation": 0.3}


@dataclass(frozen=True)
class Question:
    """`stem` + " " + `right` is a true sentence, `hint` a sentence before it.

    `topic` is a key of facts/topics.csv. `group` names what the question is about: all questions
    about it, whatever they ask, fall into one split.
    """

    topic: str
    group: str
    stem: str
    right: str
    wrong: tuple[str, ...]
    hint: str = ""
    solution: str = ""

    @property
    def split(self) -> str:
        return split_of("science", self.group, **SHARES)


@lru_cache
def topics() -> dict[str, dict[str, str]]:
    """What ScienceQA says about a question besides its text, by topic."""
    return {row["key"]: row for row in table("topics.csv")}


def rows(questions: Sequence[Question]) -> list[dict[str, object]]:
    """ScienceQA's columns. Within a topic and number of choices the place of the right choice goes round."""
    counts: Counter[tuple[str, int]] = Counter()
    found = []
    for question in questions:
        size = len(question.wrong) + 1
        place = (counts[question.topic, size] + digest(question.topic)) % size
        counts[question.topic, size] += 1
        choices = list(question.wrong)
        choices.insert(place, question.right)
        found.append(_row(question, choices, place))
    return found


def _row(question: Question, choices: list[str], answer: int) -> dict[str, object]:
    topic = topics()[question.topic]
    rule = topic[WORDINGS[digest("rule", question.group, question.stem) % len(WORDINGS)]]
    return {
        "image": None,
        "question": question.stem,
        "choices": choices,
        "answer": answer,
        "hint": f"{rule} {question.hint}".strip(),
        "task": "closed choice",
        "grade": topic["grade"],
        "subject": "natural science",
        "topic": topic["topic"],
        "category": topic["category"],
        "skill": topic["skill"],
        "lecture": rule,
        "solution": question.solution or f"{question.stem} {question.right}.",
    }
