"""A check that the packages of the suite's commands, which the library does not need, are installed. A leaf."""

from __future__ import annotations

import sys
from importlib.util import find_spec

NEEDED = ("hydra", "omegaconf")  # what these commands import as they start


def check_installed() -> None:
    """Exit with status 2 and one sentence if the library is installed without the suite; imports nothing heavy."""
    absent = next((name for name in NEEDED if find_spec(name) is None), None)
    if absent is not None:
        print(
            f"error: {absent} is not installed, which runs and tables need in addition to the library; type `pip "
            "install -c constraints.txt -e '.[suite]'` in a checkout of the project.",
            file=sys.stderr,
        )
        sys.exit(2)
