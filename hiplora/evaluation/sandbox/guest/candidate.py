"""The process that runs model-written code: it knows the program and the arguments, never the test.

Nothing that it says is trusted. Whatever the candidate's code does to this interpreter, only bytes leave it, and
the checker decodes them into plain values.
"""

from __future__ import annotations

import os

from . import codec, program

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    Reply = tuple[str, Any, Any]


def serve(job: dict[str, int]) -> None:
    """Load the program that comes first, then answer each call, until the checker hangs up."""
    codec.send(job["replies"], ("ready", None, None))
    try:
        text, entry_point = codec.receive(job["requests"])
        function, reply = _load(text, entry_point)
        _answer(job["replies"], reply)
        while function is not None:
            arguments, keywords = codec.receive(job["requests"])
            _answer(job["replies"], _call(function, arguments, keywords))
    except EOFError:
        os._exit(0)


def _load(text: str, entry_point: str) -> tuple[Callable[..., Any] | None, Reply]:
    namespace = program.new_module("candidate")
    try:
        program.run(text, "candidate.py", namespace)
        if entry_point not in namespace:
            raise NameError(f"it defines no {entry_point}")
        return namespace[entry_point], ("value", None, None)
    except BaseException as error:
        return None, _raised(error)


def _call(function: Callable[..., Any], arguments: tuple[Any, ...], keywords: dict[str, Any]) -> Reply:
    try:
        return "value", function(*arguments, **keywords), None
    except BaseException as error:
        return _raised(error)


def _answer(fd: int, reply: Reply) -> None:
    try:
        codec.send(fd, reply)
    except (codec.NotPlain, RecursionError, MemoryError) as error:
        codec.send(fd, _raised(error))


def _raised(error: BaseException) -> Reply:
    """The names of the exception's class and its base classes, because a test may expect any of them."""
    return "raised", [kind.__name__ for kind in type(error).__mro__], str(error)[:300]
