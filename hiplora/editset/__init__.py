"""EditSet-1K: a thousand facts to edit, each with its new answer, paraphrases and neighbours.

    {"id": "relation-0001", "category": "relation", "relation": "state_capital", "subject": "Ohio",
     "prompt": "The capital of the U.S. state of Ohio is", "old": "Columbus", "new": "Helena", "answers": ["Columbus"],
     "paraphrases": ["The state government of Ohio sits in", …],
     "neighbours": [{"prompt": "The capital of the U.S. state of Utah is", "answer": "Salt Lake City"}, …]}

The prompt ends without a space; a space separates it from the answer. Runs read ``editset_1k.jsonl``; ``python -m
hiplora.editset`` writes it from the tables in facts/, whose PROVENANCE.md names their sources.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hiplora.errors import UserError

PATH = Path(__file__).parent / "editset_1k.jsonl"
FIELDS = frozenset(
    ("id", "category", "relation", "subject", "prompt", "old", "new", "answers", "paraphrases", "neighbours")
)


def items(path: Path | None = None) -> list[dict[str, Any]]:
    """The rows of the shipped file, or of a file in the same form. Raises UserError if one is broken."""
    path = path or PATH
    if not path.is_file():
        raise UserError(f"{path} is not a file; an edit set is a file with one JSON object a line, like {PATH}.")
    lines = path.read_text(encoding="utf-8").splitlines()
    return [_row(line, f"{path}, line {number}") for number, line in enumerate(lines, start=1)]


def _row(line: str, where: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise UserError(f"{where} is not JSON ({error}); every line of an edit set is one JSON object.") from error
    missing = FIELDS - row.keys() if isinstance(row, dict) else FIELDS
    if missing:
        raise UserError(f"{where} lacks {', '.join(sorted(missing))}; hiplora/editset/__init__.py shows an item.")
    return row
