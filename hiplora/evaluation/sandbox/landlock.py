"""Landlock: for machines, above all containers, where no new namespaces can be made."""

from __future__ import annotations

import sys
from dataclasses import dataclass

from hiplora.evaluation.sandbox import interpreter, seccomp
from hiplora.evaluation.sandbox.backend import Backend, Unavailable
from hiplora.evaluation.sandbox.guest import lockdown


@dataclass(frozen=True, kw_only=True)
class Landlock(Backend):
    """The process takes its own rights away; nothing on the file system can be written."""

    def command(self, settings_fd: int, info_fd: int | None) -> list[str]:
        return interpreter.command(str(interpreter.GUEST.parent), settings_fd)


def landlock() -> list[Backend]:
    """The one backend of this kind. Raises Unavailable."""
    if sys.platform != "linux":
        raise Unavailable("Landlock is a part of Linux")
    try:
        lockdown.landlock_version()
    except OSError:
        raise Unavailable("this kernel has no Landlock (Linux 5.13 or later, with it switched on)") from None
    program = seccomp.build_filter(writable=False)
    return [Landlock(name="landlock", landlock=tuple(interpreter.readable_paths()), seccomp=program)]
