"""The process that holds the test and the nonce: it calls the candidate through a pipe and judges values.

``check(candidate)`` runs here, on benchmark text only. ``candidate`` is a stand-in that sends its arguments
to the other process and returns exact built-in values, so a comparison is Python's own. The nonce that makes a
verdict valid leaves this process only to the parent.
"""

from __future__ import annotations

import builtins

from . import codec, program

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


class Stopped(BaseException):
    """The candidate's process no longer answers. Not an Exception, so that a test does not catch it by accident."""


class CandidateError(Exception):
    """The candidate raised something that a test must not catch, such as SystemExit."""


class Candidate:
    """The candidate's process, as this side sees it."""

    def __init__(self, *, requests: int, replies: int) -> None:
        self._requests, self._replies = requests, replies
        self.trouble: str | None = None
        self.out_of_memory = False

    def call(self, *arguments: Any, **keywords: Any) -> Any:
        """What the entry point returns for plain arguments, or an exception like the one it raised."""
        return self.ask((arguments, keywords))

    def ask(self, message: Any) -> Any:
        try:
            codec.send(self._requests, message)
            kind, value, text = self.reply()
        except (EOFError, BrokenPipeError):
            raise self._stopped("the candidate's process ended without an answer") from None
        except codec.Malformed as error:
            raise self._stopped(f"the candidate's process sent no valid answer ({error})") from None
        self.out_of_memory = kind == "raised" and _names(value)[0] == "MemoryError"
        if kind == "value":
            return value
        raise _exception(_names(value), str(text))

    def reply(self) -> tuple[str, Any, Any]:
        reply = codec.receive(self._replies)
        if not isinstance(reply, tuple) or len(reply) != 3:
            raise codec.Malformed("not a reply")
        return reply

    def _stopped(self, trouble: str) -> Stopped:
        self.trouble = trouble
        return Stopped(trouble)


def _names(value: Any) -> list[str]:
    return [str(name) for name in value] if isinstance(value, list) and value else [str(value)]


def _exception(names: list[str], text: str) -> Exception:
    """An exception derived from the first of these classes that is built in, named as the first of the names."""
    for name in names:
        kind = getattr(builtins, name, None)
        if isinstance(kind, type) and issubclass(kind, Exception) and kind not in _AWKWARD:
            return kind(text) if name == names[0] else type(names[0].replace("\0", ""), (kind,), {})(text)
    return CandidateError(f"{names[0]}: {text}")


# Their constructors need more than a message.
_AWKWARD = (UnicodeDecodeError, UnicodeEncodeError, UnicodeTranslateError, ExceptionGroup)


def serve(job: dict[str, Any]) -> None:
    """Report when both processes are ready, then judge and send the nonce, a status and a detail."""
    candidate = Candidate(requests=job["requests"], replies=job["replies"])
    candidate.reply()
    codec.send(job["verdict"], "ready")
    status, detail = _judge(candidate, job)
    codec.send(job["verdict"], (job["nonce"], status, detail[:500]))


def _judge(candidate: Candidate, job: dict[str, Any]) -> tuple[str, str]:
    try:
        candidate.ask((job["program"], job["entry_point"]))
    except (Exception, Stopped) as error:
        return _status(candidate, "error"), f"the program does not load: {_describe(error)}"
    try:
        _check(job, candidate.call)
    except BaseException as error:
        return _status(candidate, "failed"), _describe(error)
    return ("passed", "") if candidate.trouble is None else ("error", candidate.trouble)


def _check(job: dict[str, Any], candidate: Callable[..., Any]) -> None:
    # Tests may use what the prompt defines ahead of the function, and the function by its own name.
    namespace = program.new_module("checker")
    program.run(job["preamble"], "prompt.py", namespace)
    namespace[job["entry_point"]] = candidate
    program.run(job["test"], "test.py", namespace)
    namespace["check"](candidate)


def _status(candidate: Candidate, otherwise: str) -> str:
    if candidate.trouble is not None:
        return "error"
    return "memory" if candidate.out_of_memory else otherwise


def _describe(error: BaseException) -> str:
    text = str(error)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
