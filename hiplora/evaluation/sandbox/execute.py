"""One check: two confined processes, a pipe between them, a clock and a verdict."""

from __future__ import annotations

import secrets
from contextlib import ExitStack

from hiplora.errors import UserError
from hiplora.evaluation.sandbox.backend import Backend
from hiplora.evaluation.sandbox.guest import codec
from hiplora.evaluation.sandbox.pipes import Messages, Pipe
from hiplora.evaluation.sandbox.process import Process
from hiplora.evaluation.sandbox.verdict import Check, Verdict

START_SECONDS = 60.0
"""Starting has a timeout of its own, so that a loaded machine cannot turn a right answer into a wrong one."""


class DidNotStart(UserError):
    """The sandbox itself failed, which says nothing about the candidate. ``said`` is its message."""

    def __init__(self, name: str, said: str) -> None:
        self.said = said or "it ended without a message"
        super().__init__(
            f"The sandbox {name!r} did not start ({self.said}); fix that, or set "
            "evaluation.code_execution=off to leave pass@k blank."
        )


def execute(check: Check, backend: Backend) -> Verdict:
    """Judge one completion. Raises DidNotStart."""
    nonce = secrets.token_hex(16)
    with ExitStack() as stack:
        requests, replies, verdict = (stack.enter_context(Pipe()) for _ in range(3))
        ends = {"requests": requests.read, "replies": replies.write}
        candidate = backend.start("candidate", ends, timeout=check.timeout, fds=tuple(ends.values()))
        processes = [stack.enter_context(candidate)]
        ends = {"requests": requests.write, "replies": replies.read, "verdict": verdict.write}
        job = {**ends, **_questions(check), "nonce": nonce}
        checker = backend.start("checker", job, timeout=check.timeout, fds=tuple(ends.values()))
        processes.append(stack.enter_context(checker))
        requests.close(requests.read, requests.write)
        replies.close(replies.read, replies.write)
        verdict.close(verdict.write)
        messages = Messages(verdict.read)
        _await_start(messages, backend, processes)
        return _await_verdict(messages, nonce, check.timeout)


def _questions(check: Check) -> dict[str, str]:
    return {
        "preamble": check.preamble,
        "program": check.program,
        "test": check.test,
        "entry_point": check.entry_point,
    }


def _await_start(messages: Messages, backend: Backend, processes: list[Process]) -> None:
    try:
        messages.next(seconds=START_SECONDS)
    except (EOFError, TimeoutError):
        raise DidNotStart(backend.name, _complaints(processes)) from None


def _complaints(processes: list[Process]) -> str:
    """The last line that each process wrote to stderr, without repeats."""
    lines = [line for process in processes for line in process.complaint().splitlines()[-1:]]
    return "; ".join(dict.fromkeys(lines))


def _await_verdict(messages: Messages, nonce: str, timeout: float) -> Verdict:
    try:
        answer = messages.next(seconds=timeout)
    except TimeoutError:
        return Verdict(False, "timeout", f"no verdict within {timeout:g} s")
    except (EOFError, codec.Malformed):
        return Verdict(False, "error", "the checker's process ended without a verdict")
    match answer:
        case (str(signature), str(status), str(detail)) if secrets.compare_digest(signature, nonce):
            return Verdict(status == "passed", status, _one_line(detail))
    return Verdict(False, "error", "a verdict without this run's nonce")


def _one_line(text: str) -> str:
    """The text on one line, encodable: a candidate's message may have line breaks and lone surrogates."""
    return " ".join(text.encode(errors="replace").decode().split())
