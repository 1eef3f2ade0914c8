"""What the commands of the suite need beside the library, in one sentence where it is not installed. A leaf."""

from __future__ import annotations

import sys
from importlib.util import find_spec

NEEDED = ("hydra", "omegaconf", "pandas")  # what these commands import as they start


def check_installed() -> None:
    """End with status 2 and one sentence where the library is installed without the suite; imports nothing."""
    absent = next((name for name in NEEDED if find_spec(name) is None), None)
    if absent is not None:
        print(
            f"error: {absent} is not installed, which runs and tables need beside the library; type `pip install -c "
            "constraints.txt -e '.[suite]'` in a checkout of the project.",
            file=sys.stderr,
        )
        sys.exit(2)
