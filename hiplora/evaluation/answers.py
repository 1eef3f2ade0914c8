"""Answers of a model, kept as they come: an evaluation that was stopped goes on behind them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hiplora.disk import disk_errors


def key(*asked: Any) -> str:
    """What an answer is found by: 16 hex digits of what was asked, JSON-serialisable."""
    return hashlib.sha256(json.dumps(asked).encode()).hexdigest()[:16]


class Answers:
    """A file of one model's answers under one setting, a line of JSON each; only ever appended to.

    Args:
        path: None keeps nothing. Lines that do not parse, such as one that a kill has torn, are left out.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._known: dict[str, Any] = {}
        if path is not None and path.is_file():
            for line in path.read_text(errors="replace").splitlines():
                self._known.update(_parsed(line))

    def get(self, key: str) -> Any:
        """The answer, or None."""
        return self._known.get(key)

    def missing(self, keys: Sequence[str]) -> list[int]:
        """Which of the keys have no answer yet, by index."""
        return [index for index, key in enumerate(keys) if key not in self._known]

    def keep(self, answers: Mapping[str, Any]) -> None:
        """Add answers, JSON-serialisable.

        Raises:
            UserError: the disk is full or not writable.
        """
        self._known.update(answers)
        if self._path is not None:
            with disk_errors(self._path):
                self._path.parent.mkdir(parents=True, exist_ok=True)
                with self._path.open("a") as file:  # the line before may be torn, so that each begins on its own
                    file.writelines(f"\n{json.dumps({name: answer})}" for name, answer in answers.items())


def _parsed(line: str) -> dict[str, Any]:
    try:
        found = json.loads(line)
    except json.JSONDecodeError:
        return {}
    return found if isinstance(found, dict) else {}
