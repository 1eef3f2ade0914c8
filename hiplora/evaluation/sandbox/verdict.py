"""The sandbox's input, a check, and its output, a verdict."""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Check:
    """One completion to be judged by one test.

    The candidate program is ``prompt + completion``; ``test`` defines ``check(candidate)``, which raises if
    ``entry_point`` misbehaves. ``timeout`` is in seconds, counted from when both processes are ready.
    """

    prompt: str
    completion: str
    test: str
    entry_point: str
    timeout: float

    @property
    def program(self) -> str:
        """The program that the candidate's process runs."""
        return self.prompt + self.completion

    @property
    def preamble(self) -> str:
        """The prompt's imports and helpers, all that precedes the entry point: tests may use them."""
        pattern = rf"^def\s+{re.escape(self.entry_point)}\b"
        definitions = list(re.finditer(pattern, self.prompt, re.MULTILINE))
        return self.prompt[: definitions[-1].start()] if definitions else self.prompt


@dataclass(frozen=True)
class Verdict:
    """``status`` is one of

    passed: ``check()`` returned; failed: it raised, by a wrong value or by the candidate's own exception;
    timeout: the wall clock ran out; memory: the candidate ran out of memory; error: the program does not
    load, or its process ended without an answer. ``detail`` says more, in a line.
    """

    passed: bool
    status: str
    detail: str
