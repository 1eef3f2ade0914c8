"""Checks of the values in a data set's columns, made while reading, when file and line are still known.

A check returns what is wrong with a value, or None. It gets the whole item, because some columns refer to others.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from hiplora.tasks.form import LETTERS
from hiplora.tasks.numbers import final_answer, last_number

Check: TypeAlias = Callable[[Any, Mapping[str, Any]], str | None]


def complaint(item: Mapping[str, Any], columns: Mapping[str, Check]) -> str | None:
    """The first fault of an item, as a phrase that follows its place (``has answer=7, which must …``), or None."""
    missing = [name for name in columns if name not in item]
    if missing:
        return f"has no {', '.join(missing)}; it needs {', '.join(columns)}"
    for name, check in columns.items():
        wrong = check(item[name], item)
        if wrong is not None:
            return f"has {name}={shown(item[name])}, {wrong}"
    return None


def shown(value: Any) -> str:
    """A value as a message quotes it, cut to 60 characters."""
    words = repr(value)
    return words if len(words) <= 60 else f"{words[:59]}…"


def anything(value: Any, item: Mapping[str, Any]) -> None:
    """A column that may hold anything."""


def text(value: Any, item: Mapping[str, Any]) -> str | None:
    """Text that is not blank."""
    return None if isinstance(value, str) and value.strip() else "which must be text that is not blank"


def text_or_blank(value: Any, item: Mapping[str, Any]) -> str | None:
    """Text that may be empty."""
    return None if isinstance(value, str) else "which must be text"


def optional_text(value: Any, item: Mapping[str, Any]) -> str | None:
    """Text that may be empty or null."""
    return None if value is None else text_or_blank(value, item)


def options(value: Any, item: Mapping[str, Any]) -> str | None:
    """A column that holds the texts to choose from."""
    several = isinstance(value, list) and 2 <= len(value) <= len(LETTERS)
    if several and not any(text(choice, item) for choice in value):
        return None
    return f"which must be a list of 2 to {len(LETTERS)} texts that are not blank"


def index(value: Any, item: Mapping[str, Any]) -> str | None:
    """A column that holds the index of the right one of ``choices``, which must be checked before."""
    last = len(item["choices"]) - 1
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= last:
        return None
    return f"which must be the index of the right one of the choices, from 0 to {last}"


def solution(value: Any, item: Mapping[str, Any]) -> str | None:
    """A column that holds a worked solution with its final number after ####."""
    if isinstance(value, str) and "####" in value and last_number(final_answer({"answer": value})) is not None:
        return None
    return "which must be a worked solution that ends with #### and the number, such as '3 + 2 = 5\\n#### 5'"
