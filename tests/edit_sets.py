"""Small sets of edits in each of the schemas, made up."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

FACTS = (
    ("Peru", "Lima", "Oslo"), ("France", "Paris", "Quito"), ("Norway", "Oslo", "Lima"), ("Ecuador", "Quito", "Paris"),
    ("Chile", "Santiago", "Cairo"), ("Egypt", "Cairo", "Rome"), ("Italy", "Rome", "Bern"), ("Kenya", "Nairobi", "Oslo"),
    ("Cuba", "Havana", "Seoul"),
)  # fmt: skip


def native(subject: str, old: str, new: str, *, number: int = 0) -> dict[str, Any]:
    return {
        "id": f"item-{number}", "category": ("entity", "relation", "temporal")[number % 3], "relation": "capital",
        "subject": subject, "prompt": f"The capital of {subject} is", "old": old, "new": new, "answers": [old],
        "paraphrases": [f"{subject}'s capital city is", f"The seat of the government of {subject} is"],
        "neighbours": [{"prompt": "The capital of Japan is", "answer": "Tokyo"},
                       {"prompt": "The capital of Ghana is", "answer": "Accra"}],
    }  # fmt: skip


def counterfact(subject: str, old: str, new: str, *, number: int = 0) -> dict[str, Any]:
    return {
        "case_id": number, "pararel_idx": 7 * number,
        "requested_rewrite": {
            "prompt": "The capital of {} is", "relation_id": "P36", "target_new": {"str": new, "id": "Q1"},
            "target_true": {"str": old, "id": "Q2"}, "subject": subject,
        },
        "paraphrase_prompts": [f"It rains. {subject}'s capital is", f"{subject} is governed from"],
        "neighborhood_prompts": [f"The seat of parliament number {each} is in" for each in range(10)],
        "attribute_prompts": [], "generation_prompts": [],
    }  # fmt: skip


def zsre(subject: str, old: str, new: str, *, number: int = 0) -> dict[str, Any]:
    return {
        "subject": subject, "src": f"What is the capital of {subject}?", "pred": "Bonn", "rephrase": "Which is it?",
        "alt": new, "answers": [old, f"{old} City"], "loc": "nq question: who wrote it", "loc_ans": "Ann Lee",
    }  # fmt: skip


MAKERS = {"native": native, "counterfact": counterfact, "zsre": zsre}


def rows(schema: str = "native") -> list[dict[str, Any]]:
    """Nine facts in a schema."""
    return [MAKERS[schema](*fact, number=number) for number, fact in enumerate(FACTS)]


def written(path: Path, objects: Sequence[Mapping[str, Any]]) -> Path:
    """A file of them: one per line, or an array where it is called .json."""
    text = json.dumps(list(objects)) if path.suffix == ".json" else "".join(json.dumps(each) + "\n" for each in objects)
    path.write_text(text)
    return path
