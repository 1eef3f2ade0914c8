"""Make a table or figure: find the runs behind it, run those that are missing, render.

    python -m hiplora.reproduce table1                       render what is there, plan, run what is missing, render
    python -m hiplora.reproduce table1 --plan                only say what is there, what is missing, how long it takes
    python -m hiplora.reproduce table1 --render-only         only render what is there
    python -m hiplora.reproduce figure7 --render-only        a figure: its picture, points and page
    python -m hiplora.reproduce all --render-only            every table and figure; also tables, figures
    python -m hiplora.reproduce table1 scale=paper           any override of hiplora.run, for every run of the table
    python -m hiplora.reproduce table1 method=hip seed=42    run only this part of the grid
    python -m hiplora.reproduce table1 hydra/launcher=submitit_slurm     run the jobs through another Hydra launcher

Complete runs are never run again.
"""

from __future__ import annotations

if __name__ == "__main__":  # before the imports that need the suite
    from hiplora.suite import check_installed

    check_installed()

import argparse
import shlex
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from importlib import import_module

from hiplora.conf_dir import check_conf
from hiplora.environment import single_process
from hiplora.errors import UserError, exit_status
from hiplora.report import plan
from hiplora.report.evidence import Evidence, Slot
from hiplora.report.experiment import load, request, sweeps
from hiplora.report.figures import FIGURES
from hiplora.report.find import gather, identify, ways
from hiplora.report.tables import TABLES


def reproduce(name: str, overrides: Sequence[str], *, mode: str) -> int:
    """Plan, render or make a table or figure (``mode``: plan, render, make); the exit status.

    The status is 1 if runs that were asked for are still missing after ``make``, else 0.

    Raises:
        UserError: the overrides do not fit the table, or no run of it composes.
    """
    check_conf()
    experiment = load(name)
    asked = request(experiment, overrides)
    # For the table's readers: makes the whole table, without this user's choice of launcher or part of the grid.
    command = shlex.join(["python", "-m", "hiplora.reproduce", name, *asked.settings])
    runs = identify(experiment, asked.settings)
    found = gather(experiment, runs, settings=asked.settings, command=command)
    part = [slot for slot in found.slots if asked.includes(slot.run)]
    again = shlex.join(["python", "-m", "hiplora.reproduce", name, *overrides])
    planned = replace(found, slots=part, commands=ways(part, again))
    if mode == "plan":
        print(plan.text(planned))
        return 0
    missing = [slot for slot in part if slot.missing]
    if mode == "make" and missing:
        from hiplora.hydra_compose import check_hydra

        if reason := plan.unused(found, missing):
            raise UserError(reason)
        check_hydra(asked.hydra)
        _render(found)
        print(plan.text(planned), file=sys.stderr)
        print("Running them now; after Ctrl-C the same command resumes.", file=sys.stderr, flush=True)
        _run(missing, asked.hydra)
        found = gather(experiment, runs, settings=asked.settings, command=command)
    print(_render(found))
    return 1 if mode == "make" and any(slot.missing and asked.includes(slot.run) for slot in found.slots) else 0


def every(names: Sequence[str], overrides: Sequence[str], *, mode: str) -> int:
    """Plan, render or make several tables and figures; the worst exit status, 2 if one was refused.

    One that is refused does not stop the others; each reason is printed once, at the end.
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
    """Run slots through Hydra's launcher; the next sweep starts even if one fails."""
    for words in sweeps([slot.run for slot in slots]):
        line = ["-m", "hiplora.run", "-m", *words, *options]
        print(f"$ {shlex.join(['python', *line])}", file=sys.stderr, flush=True)
        done = subprocess.run([sys.executable, *line], check=False)
        if done.returncode:
            print(f"That sweep ended with status {done.returncode}; continuing.", file=sys.stderr, flush=True)


def _render(found: Evidence) -> str:
    """Write a table or figure in all its formats, print the paths, and return it as text."""
    kind = "figures" if found.experiment.name in FIGURES else "tables"
    made = import_module(f"hiplora.report.{kind}.{found.experiment.name}").build(found)
    for path in made.write(found.folder / kind):
        print(f"Written: {path}", file=sys.stderr)
    for aside in found.asides:
        print(f"Note: {aside}", file=sys.stderr)
    return made.text()


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of ``python -m hiplora.reproduce``; the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m hiplora.reproduce", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("table", help=f"one of {', '.join((*TABLES, *FIGURES))}; or tables, figures, all")
    parser.add_argument("overrides", nargs="*", help="Hydra overrides, as for python -m hiplora.run")
    only = parser.add_mutually_exclusive_group()
    only.add_argument("--plan", dest="mode", action="store_const", const="plan", help="say what is there and missing")
    only.add_argument("--render-only", dest="mode", action="store_const", const="render", help="render what is there")
    words = parser.parse_intermixed_args(argv)
    several = {"tables": TABLES, "figures": FIGURES, "all": (*TABLES, *FIGURES)}

    def command() -> int:
        single_process()
        return every(several.get(words.table, (words.table,)), words.overrides, mode=words.mode or "make")

    try:
        return exit_status(command)
    except KeyboardInterrupt:
        print("Interrupted. Complete runs are kept; the same command resumes.", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
