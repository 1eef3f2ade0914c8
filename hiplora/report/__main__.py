"""Write one HTML page of everything in a results folder; it opens from disk and needs no network.

python -m hiplora.report                                             results/mini to outputs/report.html
python -m hiplora.report --results results/local --out page.html data.root=DIR
python -m hiplora.report model=folder model.path=DIR                 runs of another backbone; overrides as for a table
"""

from __future__ import annotations

if __name__ == "__main__":  # before the imports that need the suite
    from hiplora.suite import check_installed

    check_installed()

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from hiplora.disk import write_atomically
from hiplora.errors import exit_status
from hiplora.report.page.build import EVERYTHING, page
from hiplora.report.page.retained import OPTION


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of ``python -m hiplora.report``; the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m hiplora.report", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("overrides", nargs="*", help="Hydra overrides of all runs, as for python -m hiplora.reproduce")
    parser.add_argument("--results", default="results/mini", help="folder results/<data>")
    parser.add_argument("--out", default="outputs/report.html", help="file to write")
    parser.add_argument(
        "--only",
        default=",".join(EVERYTHING),
        metavar="NAMES",
        help="only these tables and figures, separated by commas",
    )
    parser.add_argument(
        OPTION,
        metavar="NAMES",
        help="what Retain counts in the list of runs instead of the four benchmarks: benchmarks and tasks of lm-eval, "
        "separated by commas, as for evaluation.retain",
    )
    words = parser.parse_intermixed_args(argv)

    def command() -> int:
        only, retain = words.only.split(","), [name.strip() for name in (words.retain or "").split(",") if name.strip()]
        written = page(Path(words.results), words.overrides, only=only, retain=retain).encode()
        write_atomically(Path(words.out), written)
        print(f"Written: {words.out} ({len(written) / 1e6:.1f} MB)")
        return 0

    return exit_status(command)


if __name__ == "__main__":
    sys.exit(main())
