"""Chooses the backend that works on this machine, by running a program that tries to escape."""

from __future__ import annotations

from collections.abc import Callable

from hiplora.errors import UserError
from hiplora.evaluation.sandbox.backend import Backend, Unavailable
from hiplora.evaluation.sandbox.bubblewrap import bubblewrap
from hiplora.evaluation.sandbox.execute import DidNotStart, execute
from hiplora.evaluation.sandbox.landlock import landlock
from hiplora.evaluation.sandbox.unsafe import unsafe
from hiplora.evaluation.sandbox.verdict import Check

CONFINING: dict[str, Callable[[], list[Backend]]] = {"bubblewrap": bubblewrap, "landlock": landlock}
"""In the order of preference."""

_PROBE = Check(
    prompt="def escapes():\n",
    completion="""
    import os, socket

    def allowed(action, *arguments):
        try:
            action(*arguments)
        except OSError:
            return False
        return True

    attempts = {
        "sockets": (socket.socket,),
        "signals": (os.kill, os.getpid(), 0),
        "other programs": (os.posix_spawn, "/bin/sh", ["sh", "-c", ":"], {}),
        "the file system": (open, "/etc/passwd"),
    }
    return [name for name, attempt in attempts.items() if allowed(*attempt)]
""",
    test="def check(candidate):\n    assert not candidate(), 'open to ' + ', '.join(candidate())\n",
    entry_point="escapes",
    timeout=10.0,
)


def choose_backend(requested: str) -> Backend:
    """The backend asked for, or with "auto" the first that works; a trial program is run in it first.

    ``requested`` is "auto", "bubblewrap", "landlock" or "unsafe". Raises UserError if none works, and for "off",
    which the caller must handle.
    """
    if requested == "unsafe":
        return unsafe()
    names = list(CONFINING) if requested == "auto" else [requested]
    if not set(names) <= set(CONFINING):
        raise UserError(
            f"evaluation.code_execution={requested} runs no code; a backend is one of auto, "
            f"{', '.join(CONFINING)} and unsafe."
        )
    reasons = []
    for name in names:
        try:
            return _first_that_works(CONFINING[name]())
        except Unavailable as error:
            reasons.append(f"{name}: {error}")
    raise UserError(
        f"Model-written code cannot be confined on this machine ({'; '.join(reasons)}): provide one of these, "
        "or set evaluation.code_execution=off, which leaves pass@k blank and keeps everything else."
    )


def _first_that_works(backends: list[Backend]) -> Backend:
    reasons = []
    for backend in backends:
        reason = _trial(backend)
        if reason is None:
            return backend
        reasons.append(reason)
    raise Unavailable(", and ".join(dict.fromkeys(reasons)))


def _trial(backend: Backend) -> str | None:
    """Why the backend does not work here, or None if it does."""
    try:
        verdict = execute(_PROBE, backend)
    except DidNotStart as error:
        return error.said
    except OSError as error:
        return str(error)
    return None if verdict.passed else f"a trial ended with {verdict.status}, {verdict.detail}"
