"""The command ``hiplora``, and ``python -m hiplora``: starts hiplora.run if the suite is installed."""

from __future__ import annotations

from hiplora.suite import check_installed


def main() -> None:
    """Start hiplora.run; exit with status 2 and one sentence if the library is installed without the suite."""
    check_installed()
    from hiplora.run import main as run

    run()


if __name__ == "__main__":
    main()
