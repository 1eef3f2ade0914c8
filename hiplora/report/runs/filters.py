"""Filters on fields as a user types them: ``method=hip,lora``, ``training.lr>1e-4``, ``made>2026-11-20``."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from hiplora.errors import UserError
from hiplora.report.runs.fields import Fields, Value, resolve, shown

WORD = re.compile(r"(?P<field>[^=<>!]+)(?P<sign>!=|<=|>=|=|<|>)(?P<value>.*)")
DAY = re.compile(r"\d{4}(-\d\d){0,2}(T[\d:]+)?$")
DATE = "started"  # compared as text, which is the order in time
ALSO = {"made": DATE}  # other names of fields, as lists call them
HASH = re.compile(r"[0-9a-f]{6,}")  # an id, a commit or a digest, or the beginning of one


@dataclass(frozen=True)
class Filter:
    """A condition on a field: one of ``values`` (``=``) or none of them (``!=``), or on one side of a number."""

    field: str
    sign: str
    values: tuple[str, ...]

    def holds(self, fields: Fields) -> bool:
        """Whether a record passes; one without the field never does."""
        if self.field not in fields:
            return False
        value: Any = fields[self.field]
        if self.sign in ("=", "!="):
            day = self.field == DATE  # a day is that of each of its times
            found = any(_same(value[: len(each)] if day else value, each) for each in self.values)
            return found == (self.sign == "=")
        bound: Any = self.values[0]
        if self.field == DATE:
            value = str(value)[: len(bound)]  # a day is compared with days
        else:
            if isinstance(value, bool) or not isinstance(value, int | float):
                return False
            bound = float(bound)
        return {"<": value < bound, ">": value > bound, "<=": value <= bound, ">=": value >= bound}[self.sign]


def select(found: Sequence[Fields], words: Sequence[str]) -> list[Fields]:
    """The records that pass every filter. Raises UserError for a word that is not a filter or names no field."""
    known = dict.fromkeys(name for fields in found for name in fields)
    filters = [parse(word, list(known)) for word in words] if found else []
    return [fields for fields in found if all(each.holds(fields) for each in filters)]


def parse(word: str, known: Sequence[str]) -> Filter:
    """The filter that a word stands for. Raises UserError if it is not a filter."""
    match = WORD.fullmatch(word)
    if match is None:
        raise UserError(f"{word!r} is not a filter; type field=value, e.g. method=hip, or field>number.")
    typed, sign, value = match["field"].strip(), match["sign"], match["value"]
    field = resolve(ALSO.get(typed, typed), known)
    if sign not in ("=", "!=") and field == DATE and not DAY.match(value):
        raise UserError(f"{word}: {value!r} is not a date; type one such as 2026-11-20, or 2026-11-20T14:30.")
    if sign not in ("=", "!=") and field != DATE and _number(value) is None:
        raise UserError(f"{word}: {value!r} is not a number; type one behind {sign}.")
    values = (value,) if sign not in ("=", "!=") else tuple(value.split(","))
    return Filter(field, sign, values)


def _same(value: Value, typed: str) -> bool:
    text, number = shown(value), _number(typed)
    if number is not None and isinstance(value, int | float) and not isinstance(value, bool):
        return value == number
    begins = HASH.fullmatch(typed) and HASH.fullmatch(text) and text.startswith(typed)
    return bool(begins) or text == typed or fnmatchcase(text.lower(), typed.lower())


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
