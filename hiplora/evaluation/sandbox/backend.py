"""Base class of sandbox backends: starts one sandboxed process that inherits only what it needs."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from tempfile import TemporaryFile
from typing import Any

from hiplora.evaluation.sandbox.guest import codec
from hiplora.evaluation.sandbox.process import Process

ADDRESS_SPACE = 512 * 2**20
FILE_SIZE = 16 * 2**20
OPEN_FILES = 32


class Unavailable(Exception):
    """This machine lacks what a backend needs; the message says what, in a few words."""


@dataclass(frozen=True, kw_only=True)
class Backend:
    """One way to confine a process. ``name`` goes into the record.

    ``command``, which a subclass defines, confines from outside. ``landlock`` (the paths that stay readable) and
    ``seccomp`` (a BPF program) are restrictions that the process applies to itself before it runs the candidate.
    """

    name: str
    landlock: tuple[str, ...] | None = None
    seccomp: bytes | None = None
    # Whether command() starts a keeper whose child, in namespaces of its own, runs the interpreter.
    has_keeper: bool = False

    def command(self, settings_fd: int, info_fd: int | None) -> list[str]:
        """The command of a process that reads its settings from ``settings_fd``; a keeper reports the process
        it keeps on ``info_fd``."""
        raise NotImplementedError

    def limits(self, timeout: float) -> dict[str, int]:
        """Resource limits by name, in seconds, bytes and files.

        The CPU limit only backs up the parent's clock. RLIMIT_NPROC is left alone: it counts every process of
        the user on the machine, and none of root's.
        """
        seconds = int(timeout) + 3
        return {"CPU": seconds, "AS": ADDRESS_SPACE, "FSIZE": FILE_SIZE, "NOFILE": OPEN_FILES, "CORE": 0}

    @contextmanager
    def start(self, role: str, job: dict[str, Any], *, timeout: float, fds: tuple[int, ...]) -> Iterator[Process]:
        """A process in ``role`` that inherits only ``fds`` and its settings; it is killed when the context ends.

        Raises OSError when no process can be started at all.
        """
        settings = self._settings(role, job, timeout)
        with ExitStack() as stack:
            # Unlike a pipe, a file takes a job of any size without a reader.
            file = stack.enter_context(TemporaryFile())
            codec.send(file.fileno(), settings)
            file.seek(0)
            info_read, info_write = _pipe(stack) if self.has_keeper else (None, None)
            inherited = [file.fileno(), *fds] + ([] if info_write is None else [info_write])
            process = Process(_spawn(self.command(file.fileno(), info_write), inherited), info_read)
            stack.callback(process.end)
            yield process

    def _settings(self, role: str, job: dict[str, Any], timeout: float) -> dict[str, Any]:
        return {
            "role": role,
            "job": job,
            "limits": self.limits(timeout),
            # Process ids inside a namespace differ from ours.
            "parent": None if self.has_keeper else os.getpid(),
            "landlock": None if self.landlock is None else list(self.landlock),
            "seccomp": self.seccomp,
        }


def _pipe(stack: ExitStack) -> tuple[int, int]:
    ends = os.pipe()
    for fd in ends:
        stack.callback(os.close, fd)
    return ends


def _spawn(command: list[str], inherited: list[int]) -> subprocess.Popen[bytes]:
    # No preexec_fn: this may be a process with many threads, where code between fork and exec can deadlock.
    return subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        pass_fds=inherited,
        start_new_session=True,
        cwd="/",
        env={},
    )
