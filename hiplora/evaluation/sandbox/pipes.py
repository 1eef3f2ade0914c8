"""Pipes that are closed reliably, and messages read from one with a deadline."""

from __future__ import annotations

import os
import select
import time
from typing import Any

from hiplora.evaluation.sandbox.guest import codec

_MAX_MESSAGES = 2**16


class Pipe:
    """Both ends of a pipe; as a context it closes whichever is still open."""

    def __init__(self) -> None:
        self.read, self.write = os.pipe()
        self._open = {self.read, self.write}

    def __enter__(self) -> Pipe:
        return self

    def __exit__(self, *_: object) -> None:
        self.close(*self._open)

    def close(self, *ends: int) -> None:
        """Close our copies of these ends, so that each process notices when its partner ends."""
        for end in ends:
            self._open.remove(end)
            os.close(end)


class Messages:
    """What arrives at the read end of a pipe, bounded in bytes."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._buffer = b""
        # select() cannot watch descriptors above 1023, which a training process may well have.
        self._poll = select.poll()
        self._poll.register(fd, select.POLLIN)

    def next(self, *, seconds: float) -> Any:
        """The next message. Raises TimeoutError; EOFError when the writer ended, or wrote too much."""
        deadline = time.monotonic() + seconds
        while (frame := codec.split_frame(self._buffer)) is None:
            remaining = deadline - time.monotonic()
            if remaining <= 0 or not self._poll.poll(remaining * 1000):
                raise TimeoutError
            chunk = os.read(self._fd, _MAX_MESSAGES)
            self._buffer += chunk
            if not chunk or len(self._buffer) > _MAX_MESSAGES:
                raise EOFError
        message, self._buffer = frame
        return message
