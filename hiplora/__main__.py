"""The command ``hiplora``, and ``python -m hiplora``: hiplora.run, where what it needs is installed."""

from __future__ import annotations

import sys


def main() -> None:
    """Start hiplora.run; exit status 2 with one sentence where the library is installed without the suite."""
    try:
        from hiplora.run import main as run
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] == "hiplora":
            raise
        print(
            f"error: {error.name} is not installed, which runs need beside the library; type `pip install -c "
            "constraints.txt -e '.[suite]'` in a checkout of the project.",
            file=sys.stderr,
        )
        sys.exit(2)
    run()


if __name__ == "__main__":
    main()
