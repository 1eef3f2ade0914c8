"""Rows of a user's own data as items: prompt and answer, instruction, or a conversation; and multiple-choice options.

``prompt``       {"prompt": "What is 2 + 2?", "answer": "4"}
``instruction``  {"instruction": "Add.", "input": "2 2", "output": "4"}; without input, or with an empty one
``messages``     {"messages": [{"role": "user", "content": "2 + 2?"}, {"role": "assistant", "content": "4"}]}

The columns may have other names. Whatever the layout, an item has an id, ``instruction``, ``input`` and ``output``, or
``messages``; with options also ``choices`` and, in ``answer``, the index of the right one.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar

from pydantic import BeforeValidator

from hiplora.config import Options
from hiplora.errors import UserError
from hiplora.tasks.columns import shown
from hiplora.tasks.files import HALF, holds_half
from hiplora.tasks.form import LETTERS
from hiplora.tasks.own_rows import Placed

LAYOUTS = {"messages": ("messages",), "instruction": ("instruction", "output"), "prompt": ("prompt", "answer")}
ROLES = ("system", "developer", "user", "assistant", "tool")


class Columns(Options):
    """Names of a data set's columns; ``choices`` is one column with a list, or several columns with an option each."""

    group: ClassVar[str] = "task.columns"
    version: ClassVar[int] = 2  # 2: named columns decide the layout

    prompt: str
    answer: str
    instruction: str
    input: str
    output: str
    messages: str
    choices: Annotated[str | tuple[str, ...], BeforeValidator(lambda v: tuple(v) if isinstance(v, list) else v)]

    def check_options(self) -> None:
        if not isinstance(self.choices, str) and not 2 <= len(self.choices) <= len(LETTERS):
            raise UserError(
                f"task.columns.choices=[{','.join(self.choices)}] must name 2 to {len(LETTERS)} columns with an option "
                "each; for one column that holds a list, type task.columns.choices=NAME."
            )


def layout_of(rows: Sequence[Placed], columns: Columns, asked: str, *, choices: bool) -> str:
    """The layout ``asked``, or for ``auto`` the first one whose columns the first row has; ``choices`` need a prompt.

    If the user named columns of some layouts, it is one of these: no default column takes the place of a named one.

    Raises:
        UserError: the first row has the columns of no layout.
    """
    if asked != "auto":
        return asked
    place, first = rows[0]
    names = {
        layout: [getattr(columns, role) for role in roles]
        for layout, roles in LAYOUTS.items()
        if layout != "messages" or not choices
    }
    named = {layout: found for layout, found in names.items() if found != [*LAYOUTS[layout]]}
    for layout, wanted in (named or names).items():
        if all(name in first for name in wanted):
            return layout
    known = ", ".join(f"{layout} ({', '.join(wanted)})" for layout, wanted in (named or names).items())
    raise UserError(
        f"{place} has the columns {', '.join(first) or '(none)'}, which fit none of the layouts {known}; name yours, "
        "such as task.columns.prompt=NAME task.columns.answer=NAME, or the layout with task.layout=NAME."
    )


def items_of(
    rows: Sequence[Placed], columns: Columns, *, layout: str, choices: bool, split: str
) -> tuple[dict[str, Any], ...]:
    """Every row as an item, checked; its id is ``<split>/<row>``.

    Raises:
        UserError: a row is wrong; the message names the place, the column and what it must hold.
    """
    found = layout_of(rows, columns, layout, choices=choices)
    read = _conversation if found == "messages" else _example
    if choices and found == "messages":
        raise UserError(
            "task.metric=choice does not work with task.layout=messages; give the columns prompt, choices and answer, "
            "and type task.layout=prompt."
        )
    items = []
    for number, (place, row) in enumerate(rows):
        item = read(place, row, columns, found, choices)
        items.append({"id": f"{split}/{number}", **item})
    return tuple(items)


def _example(place: str, row: Mapping[str, Any], columns: Columns, layout: str, choices: bool) -> dict[str, Any]:
    """Instruction, input and output of a row."""
    first, last = ("instruction", "output") if layout == "instruction" else ("prompt", "answer")
    instruction = _text(place, row, getattr(columns, first), first)
    given = _as_text(row.get(columns.input)) if layout == "instruction" else None
    if given is not None and not isinstance(given, str):
        raise UserError(
            f"{place} has {columns.input}={shown(given)}, which must be text, a number or empty; repair it."
        )
    item = {"instruction": instruction, "input": given or ""}
    if not choices:
        return {**item, "output": _text(place, row, getattr(columns, last), last)}
    options = _options(place, row, columns.choices)
    right = _right(place, _value(place, row, getattr(columns, last), last), options)
    return {**item, "choices": options, "answer": right, "output": options[right]}


def _conversation(place: str, row: Mapping[str, Any], columns: Columns, layout: str, choices: bool) -> dict[str, Any]:
    """Messages of a row; the last one is the answer."""
    messages = _value(place, row, columns.messages, "messages")
    valid = isinstance(messages, list) and all(
        isinstance(each, Mapping) and isinstance(each.get("role"), str) and isinstance(each.get("content"), str)
        for each in messages
    )
    if not valid:
        raise UserError(
            f"{place} has {columns.messages}={shown(messages)}, which must be a list of messages with role and "
            "content, both text; repair or remove it."
        )
    unknown = next((each["role"] for each in messages if each["role"] not in ROLES), None)
    if unknown is not None:
        raise UserError(
            f"{place} has a message with the role {shown(unknown)}; the roles are {', '.join(ROLES)}: rename it or "
            "remove the row."
        )
    if any(each.get("tool_calls") for each in messages):
        raise UserError(
            f"{place} has a message with tool_calls, but only role and content are read; write the calls into the "
            "content, or remove the row."
        )
    plain = [{"role": each["role"], "content": each["content"]} for each in messages]
    if len(plain) < 2 or plain[-1]["role"] != "assistant" or not plain[-1]["content"].strip():
        raise UserError(
            f"{place} needs at least two messages, the last one an answer of the assistant with text, because it is "
            "what the model is trained to write and scored on."
        )
    return {"messages": plain}


def _value(place: str, row: Mapping[str, Any], column: str, role: str) -> Any:
    if column not in row:
        raise UserError(
            f"{place} has no column {column}; it has {', '.join(map(str, row)) or 'none'}: type "
            f"task.columns.{role}=NAME."
        )
    return row[column]


def _text(place: str, row: Mapping[str, Any], column: str, role: str) -> str:
    """A value as text that is not blank; a number becomes its text."""
    value = _as_text(_value(place, row, column, role))
    if not isinstance(value, str):
        raise UserError(f"{place} has {column}={shown(value)}, which must be text or a number; repair or remove it.")
    if not value.strip():
        raise UserError(f"{place} has an empty {column}; fill it in or remove the row.")
    return value


def _as_text(value: Any) -> Any:
    """A finite number as text; any other value unchanged."""
    whole = isinstance(value, int) and not isinstance(value, bool)
    return str(value) if whole or (isinstance(value, float) and math.isfinite(value)) else value


def _options(place: str, row: Mapping[str, Any], columns: str | tuple[str, ...]) -> list[str]:
    """The texts to choose from: a list in one column (in a csv as JSON), or one in each of several columns."""
    if not isinstance(columns, str):
        return [_text(place, row, column, "choices") for column in columns]
    value = _value(place, row, columns, "choices")
    if isinstance(value, str) and value.lstrip().startswith("["):
        value = _parsed(place, value)
    value = [_as_text(each) for each in value] if isinstance(value, list) else value
    texts = isinstance(value, list) and all(isinstance(each, str) and each.strip() for each in value)
    if not texts or not 2 <= len(value) <= len(LETTERS):
        raise UserError(
            f"{place} has {columns}={shown(value)}, which must be a list of 2 to {len(LETTERS)} texts or "
            "numbers, none of them blank; or name several columns: task.columns.choices=[A,B]."
        )
    return list(value)


def _parsed(place: str, text: str) -> Any:
    try:
        found = json.loads(text)
    except ValueError:
        return text  # the caller refuses it and shows it
    if holds_half(text.encode(), found):
        raise UserError(f"{place} {HALF}; repair or remove this line.")
    return found


def _right(place: str, answer: Any, options: Sequence[str]) -> int:
    """Index of the right option: an integer is the index; text is the option's text, else its letter or its index."""
    answer = _as_text(answer) if isinstance(answer, float) else answer
    if isinstance(answer, str):
        text = answer.strip()
        letters, texts = LETTERS[: len(options)], [option.strip() for option in options]
        if text in texts:
            return texts.index(text)
        if len(text) == 1 and text.upper() in letters:
            return letters.index(text.upper())
        answer = int(text) if text.isdecimal() and len(text) < 100 else answer  # int() refuses thousands of digits
    if isinstance(answer, int) and not isinstance(answer, bool) and 0 <= answer < len(options):
        return answer
    raise UserError(
        f"{place} has the answer {shown(answer)}, which must be one of its {len(options)} options: its text, its "
        f"letter, or its index from 0 to {len(options) - 1}."
    )
