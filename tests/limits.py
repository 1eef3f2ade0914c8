"""What stands for a full disk, and for a reader such as ``head`` that ends before the command does."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout

import pytest


@contextmanager
def small_files(most: int = 1024) -> Iterator[None]:
    """Let this process write no file beyond ``most`` bytes: the system refuses, as it does where no room is left."""
    resource = pytest.importorskip("resource", reason="needs POSIX limits")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@contextmanager
def gone_reader() -> Iterator[None]:
    """Print into a pipe that nobody reads: the system refuses the bytes when they are flushed."""
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as stream, redirect_stdout(stream):
        yield
