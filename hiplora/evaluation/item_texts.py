"""Text of the items of lm-eval's tasks, kept outside records so that predictions can be shown with it.

Records never hold a benchmark's text, and only lm-eval knows the text of its tasks' items. It is written when tasks are
scored, to a file that is named by its content and can be deleted. A record names the file, and a prediction's hashes
its item.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from hiplora.config import digest
from hiplora.disk import json_object, write_json

Texts = dict[str, "ItemText"]  # by key


class ItemText(BaseModel):
    """One item: its prompt, or the whole text that is scored; its right answer and its options, if it has any."""

    model_config = ConfigDict(frozen=True)

    prompt: str
    right: str | None = None
    options: tuple[str, ...] = ()


def key(benchmark: str, hashes: Mapping[str, Any]) -> str:
    """The key of an item: its benchmark, and the hashes of document and prompt that a prediction has, too."""
    return f"{benchmark} {hashes.get('doc_hash')} {hashes.get('prompt_hash')}"


def keep(folder: Path, texts: Texts) -> str:
    """Write the text of items, if it is not there yet. Returns its digest, which names the file.

    Raises:
        UserError: the disk is full or not writable.
    """
    found = {key: text.model_dump(mode="json") for key, text in texts.items()}
    name = digest(found)
    if load(folder, name) is None:
        write_json(_path(folder, name), found)
    return name


def load(folder: Path, name: str) -> Texts | None:
    """The text of items with this digest; None if its file is not in the folder, or damaged."""
    try:
        found = json_object(_path(folder, name))
        return {key: ItemText(**text) for key, text in found.items()} if digest(found) == name else None
    except (OSError, ValueError, TypeError, ValidationError):
        return None


def _path(folder: Path, name: str) -> Path:
    return folder / f"{name}.json"
