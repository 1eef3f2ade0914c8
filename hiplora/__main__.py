"""The command ``hiplora``, and ``python -m hiplora``: hiplora.run, where what it needs is installed."""

from __future__ import annotations

from hiplora.suite import check_installed


def main() -> None:
    """Start hiplora.run; exit status 2 with one sentence where the library is installed without the suite."""
    check_installed()
    from hiplora.run import main as run

    run()


if __name__ == "__main__":
    main()
