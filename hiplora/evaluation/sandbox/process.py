"""A sandboxed process as its parent sees it; ending it leaves no process behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from contextlib import suppress

_MAX_TEXT = 4096
_GRACE_SECONDS = 10.0


class Process:
    """Wraps what was spawned: the interpreter, or a keeper that runs it inside namespaces and names it on
    ``info_fd``."""

    def __init__(self, spawned: subprocess.Popen[bytes], info_fd: int | None) -> None:
        assert spawned.stderr is not None
        self._spawned, self._errors, self._info_fd = spawned, spawned.stderr, info_fd

    def complaint(self) -> str:
        """The text on standard error from before the process was confined."""
        return _available(self._errors.fileno()).strip()

    def end(self) -> None:
        """Kill, reap, and close what was opened.

        The keeper must reap its child: if it were killed first, the child would stay a zombie in a container whose
        process 1 does not reap.
        """
        try:
            # While the keeper lives, the process id it reported is that of its child.
            if self._info_fd is not None and self._spawned.poll() is None:
                self._end_kept(_available(self._info_fd))
        finally:
            # Until the leader is reaped, which only we do, its process id is the id of its group.
            if self._spawned.poll() is None:
                os.killpg(self._spawned.pid, signal.SIGKILL)
            self._spawned.wait()
            self._errors.close()

    def _end_kept(self, report: str) -> None:
        if not report:
            return
        with suppress(ProcessLookupError):
            os.kill(json.loads(report)["child-pid"], signal.SIGKILL)
        with suppress(subprocess.TimeoutExpired):
            self._spawned.wait(_GRACE_SECONDS)


def _available(fd: int) -> str:
    """What can be read now, without waiting for more."""
    os.set_blocking(fd, False)
    with suppress(BlockingIOError):
        return os.read(fd, _MAX_TEXT).decode(errors="replace")
    return ""
