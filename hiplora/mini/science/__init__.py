"""Science questions, asked as sentences to be completed: the mini counterpart of ScienceQA.

    {"image": None, "hint": "One kind of symbol … The chemical formula of water is H2O.", "question": "Water is",
     "choices": ["an element", "a compound"], "answer": 1, "subject": "natural science", …}

Most topics follow a rule; the rest is recall. The rule stands in front of the question, in one of three wordings, so
that an adapter learns to go by a text that is there, and unlearns ordinary text less.
"""

from __future__ import annotations

from functools import lru_cache

from hiplora.mini.draw import Draw, digest
from hiplora.mini.science import classify, matter, measure, reason
from hiplora.mini.science.question import Question, rows

ITEMS = {"test": 300, "validation": 300, "train": 2000}
PER_TOPIC_TRAIN = 160  # no topic may take more of the training corpus


@lru_cache
def _all() -> tuple[Question, ...]:
    """Every distinct question; the same text is never asked twice."""
    found: dict[tuple[str, str], Question] = {}
    for module in (classify, measure, matter, reason):
        for question in module.questions():
            found.setdefault((question.hint, question.stem), question)
    return tuple(found.values())


def selected(split: str) -> list[Question]:
    """Topics take turns until the split is full; outside training every group is asked about once."""
    queues: dict[str, list[Question]] = {}
    seen: set[tuple[str, str]] = set()
    for question in sorted(_all(), key=lambda q: digest("science", q.hint, q.stem)):
        group = (question.topic, question.group)
        if question.split != split or (split != "train" and group in seen):
            continue
        seen.add(group)
        queues.setdefault(question.topic, []).append(question)
    taken: list[Question] = []
    for turn in range(PER_TOPIC_TRAIN):
        taken += [queues[key][turn] for key in sorted(queues) if turn < len(queues[key])]
    return taken[: ITEMS[split]]


def items(split: str) -> list[dict[str, object]]:
    return Draw("scienceqa", split).shuffled(rows(selected(split)))
