"""The interpreter that a sandboxed process runs, and the files that it must be able to read."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from hiplora.evaluation.sandbox.guest import launcher

GUEST = Path(launcher.__file__).resolve().parent
"""The package that runs inside."""

_SYSTEM_LIBRARIES = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/etc/ld.so.cache")


def executable() -> str:
    """The base interpreter, because that of a virtual environment may be inside the project."""
    return os.path.realpath(getattr(sys, "_base_executable", sys.executable))


def readable_paths() -> list[str]:
    """The interpreter, its libraries and the system's: nothing of the user's, nothing of the project's."""
    paths = [executable(), f"{sys.base_prefix}/lib", *_SYSTEM_LIBRARIES]
    return [path for path in dict.fromkeys(paths) if os.path.exists(path)]


def command(folder: str, settings_fd: int) -> list[str]:
    """The command of a process that finds ``guest`` in ``folder`` and its settings on a descriptor."""
    return [executable(), "-I", "-S", "-c", launcher.BOOTSTRAP, folder, str(settings_fd)]
