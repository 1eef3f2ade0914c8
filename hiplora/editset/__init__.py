"""EditSet-1K: a thousand facts to edit, each with its new answer, paraphrases and neighbours.

    {"id": "relation-0001", "category": "relation", "relation": "state_capital", "subject": "Ohio",
     "prompt": "The capital of the U.S. state of Ohio is", "old": "Columbus", "new": "Helena", "answers": ["Columbus"],
     "paraphrases": ["The state government of Ohio sits in", …],
     "neighbours": [{"prompt": "The capital of the U.S. state of Utah is", "answer": "Salt Lake City"}, …]}

The prompt ends without a space; a space separates it from the answer. Runs read ``editset_1k.jsonl``; ``python -m
hiplora.editset`` writes it from the tables in facts/, whose PROVENANCE.md names their sources.
"""

from __future__ import annotations

from pathlib import Path

PATH = Path(__file__).parent / "editset_1k.jsonl"
