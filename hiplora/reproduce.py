"""Make a table or figure: find the runs behind it, run those that are missing, render.

    python -m hiplora.reproduce table1                       plan, render what is there, run what is missing, render
    python -m hiplora.reproduce table1 --plan                only say what is there, what is missing, how long it takes
    python -m hiplora.reproduce table1 --render-only         only render what is there
    python -m hiplora.reproduce figure7 --render-only        a figure: its picture, points and page
    python -m hiplora.reproduce all --render-only            the same for all of them; also tables, figures
    python -m hiplora.reproduce table1 scale=paper           any override of hiplora.run, for every run of the table
    python -m hiplora.reproduce table1 method=hip seed=42    run only this part of the grid
    python -m hiplora.reproduce table1 hydra/launcher=submitit_slurm     let another Hydra launcher run the jobs

Complete runs are never made again.
"""

from __future__ import annotations

if __name__ == "__main__":  # in front of what cannot be imported without it
    from hiplora.suite import check_installed

    check_installed()

import argparse
import shlex
import subprocess
import sys
from collections.abc import Sequence
from importlib import import_module

from hiplora.conf import check_conf
from hiplora.environment import single_process
from hiplora.errors import UserError
from hiplora.report import plan
from hiplora.report.experiment import load, request, sweeps
from hiplora.report.figures import FIGURES
from hiplora.report.find import gather, identify
from hiplora.report.frame import Evidence, Slot
from hiplora.report.tables import TABLES


def reproduce(name: str, overrides: Sequence[str], *, mode: str) -> int:
    """Plan, render or make a table or figure ("plan", "render", "make"); 1 where asked-for runs are missing."""
    check_conf()
    experiment = load(name)
    asked = request(experiment, overrides)
    # For whoever reads the table: all of it, with whatever launcher is theirs.
    command = shlex.join(["python", "-m", "hiplora.reproduce", name, *asked.settings])
    runs = identify(experiment, asked.settings)
    found = gather(experiment, runs, settings=asked.settings, command=command)
    if mode == "plan":
        print(plan.text(found))
        return 0
    missing = [slot for slot in found.slots if slot.missing and asked.includes(slot.run)]
    if mode == "make" and missing:
        from hiplora.composition import check_hydra

        check_hydra(asked.hydra)
        _render(found)
        print(plan.text(found), file=sys.stderr)
        print("Running them now; Ctrl-C loses only the run that it stops.", file=sys.stderr, flush=True)
        _run(missing, asked.hydra)
        found = gather(experiment, runs, settings=asked.settings, command=command)
    print(_render(found))
    return 1 if mode == "make" and any(slot.missing and asked.includes(slot.run) for slot in found.slots) else 0


def every(names: Sequence[str], overrides: Sequence[str], *, mode: str) -> int:
    """Plan, render or make each; one that cannot be keeps no other, and each reason is said once, at the end.

    The worst status of all: 2 where something was refused.
    """
    refused: dict[str, list[str]] = {}
    worst = 0
    for name in names:
        try:
            worst = max(worst, reproduce(name, overrides, mode=mode))
        except UserError as error:
            refused.setdefault(str(error), []).append(name)
    for reason, whose in refused.items():
        where = f"{', '.join(whose)}: " if len(names) > 1 else ""
        print(f"error: {where}{reason}", file=sys.stderr)
    return 2 if refused else worst


def _run(slots: Sequence[Slot], options: Sequence[str]) -> None:
    """Run slots through Hydra's launcher; a sweep that fails does not keep the next from starting."""
    for words in sweeps([slot.run for slot in slots]):
        line = ["-m", "hiplora.run", "-m", *words, *options]
        print(f"$ {shlex.join(['python', *line])}", file=sys.stderr, flush=True)
        done = subprocess.run([sys.executable, *line], check=False)
        if done.returncode:
            print(f"That sweep ended with status {done.returncode}; going on.", file=sys.stderr, flush=True)


def _render(found: Evidence) -> str:
    """Write the table or figure in its formats, name the files, and give it as text."""
    kind = "figures" if found.experiment.name in FIGURES else "tables"
    made = import_module(f"hiplora.report.{kind}.{found.experiment.name}").build(found)
    for path in made.write(found.folder / kind):
        print(f"Written: {path}", file=sys.stderr)
    return made.text()


def main(argv: Sequence[str] | None = None) -> int:
    """Entry of ``python -m hiplora.reproduce``."""
    parser = argparse.ArgumentParser(
        prog="python -m hiplora.reproduce", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("table", help=f"one of {', '.join((*TABLES, *FIGURES))}; or tables, figures, all")
    parser.add_argument("overrides", nargs="*", help="Hydra overrides, as for python -m hiplora.run")
    only = parser.add_mutually_exclusive_group()
    only.add_argument("--plan", dest="mode", action="store_const", const="plan", help="say what is there and missing")
    only.add_argument("--render-only", dest="mode", action="store_const", const="render", help="render what is there")
    words = parser.parse_intermixed_args(argv)
    try:
        single_process()
        several = {"tables": TABLES, "figures": FIGURES, "all": (*TABLES, *FIGURES)}
        return every(several.get(words.table, (words.table,)), words.overrides, mode=words.mode or "make")
    except KeyboardInterrupt:
        print("Interrupted. Complete runs are kept; the same command goes on from there.", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
