"""First code of a sandboxed process: read the settings, confine, then play one of the two roles."""

from __future__ import annotations

import os
import sys

from . import candidate, checker, codec, lockdown

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

ROLES = {"candidate": candidate.serve, "checker": checker.serve}

BOOTSTRAP = "import sys; sys.path.insert(0, sys.argv[1]); from guest.launcher import main; main(int(sys.argv[2]))"
"""Run by ``python -I -S -c BOOTSTRAP FOLDER FD``, FOLDER holding this package and FD open on the settings."""


def main(settings_fd: int) -> None:
    """Never returns: the process ends with its role, past any clean-up the candidate's code registered."""
    settings: dict[str, Any] = codec.receive(settings_fd)
    os.close(settings_fd)
    del sys.path[0]
    lockdown.confine(settings)
    # The parent read stderr during the start; from here on, output is discarded.
    os.dup2(1, 2)
    os.environ.clear()
    ROLES[settings["role"]](settings["job"])
    os._exit(0)
