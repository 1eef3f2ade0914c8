"""Make a table: find the runs behind it, run those that are missing, render.

    python -m hiplora.reproduce table1                       plan, render what is there, run what is missing, render
    python -m hiplora.reproduce table1 --plan                only say what is there, what is missing, how long it takes
    python -m hiplora.reproduce table1 --render-only         only render what is there
    python -m hiplora.reproduce table1 scale=paper           any override of hiplora.run, for every run of the table
    python -m hiplora.reproduce table1 method=hip seed=42    run only this part of the grid
    python -m hiplora.reproduce table1 hydra/launcher=submitit_slurm     let another Hydra launcher run the jobs

Records are found by the identity of the composed configuration; complete runs are never made again.
"""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from hiplora.config import RunConfig, digest
from hiplora.errors import UserError
from hiplora.records import load_records
from hiplora.report import experiment as experiments
from hiplora.report import plan
from hiplora.report.assemble import Match, evidence, results_folder
from hiplora.report.cells import Table
from hiplora.report.commands import shell, sweeps
from hiplora.report.evidence import Evidence, Record, Slot, missing_slots
from hiplora.report.experiment import Experiment, Wanted
from hiplora.report.grid import compose_all
from hiplora.report.render import markdown
from hiplora.report.request import Request, request, with_settings
from hiplora.report.tables import builder
from hiplora.report.write import write


def identify(experiment: Experiment, settings: Sequence[str]) -> list[Match]:
    """Compose every run and give it its identity; no record is looked for yet.

    Raises:
        UserError: no run of the experiment can be composed, a setting applies to none or makes two of them one.
    """
    from hiplora.compose import compose
    from hiplora.scheduler import record_id

    wanted = with_settings(experiment.wanted(), settings, compose)
    configs = compose_all(wanted, compose)
    matches = [_identified(run, config, record_id) for run, config in zip(wanted, configs, strict=True)]
    if all(m.config is None for m in matches):
        raise UserError(matches[0].slot.problem or f"{experiment.name} has no runs.")
    _refuse_twins(matches)
    return matches


def _refuse_twins(matches: Sequence[Match]) -> None:
    """A setting must not make two rows one and the same run: one of them would bear a name that is not its own."""
    first: dict[tuple[str, str], Wanted] = {}
    for found in matches:
        run = found.slot.wanted
        if found.identity is not None:
            other = first.setdefault((run.group, found.identity), run)
            apart = [axis for axis in run.point if run.point[axis] != other.point[axis]]
            if apart:
                one, two = (" ".join(f"{axis}={each.point[axis]}" for axis in apart) for each in (other, run))
                raise UserError(f"With these settings {one} and {two} are the same run; leave out what makes them so.")


def _identified(run: Wanted, config: RunConfig | UserError, record_id: Callable[[RunConfig], str]) -> Match:
    try:
        if isinstance(config, UserError):
            raise config
        return Match(slot=Slot(wanted=run, settings=config.resolved()), config=config, identity=record_id(config))
    except UserError as error:
        return Match(slot=Slot(wanted=run, problem=str(error)))


def match(run: Match, records: Records) -> Match:
    """Find the record of a run: the one with the identity of its composed configuration, and nothing less.

    Labels alone would not do: two records may agree in method, task and seed and differ in training.
    """
    if run.config is None:
        return run
    record = next((r for r in records.beside(run.config) if r["id"] == run.identity), None)
    return replace(run, slot=replace(run.slot, record=record))


class Records:
    """Records by folder, each folder read once."""

    def __init__(self) -> None:
        self._read: dict[tuple[Path, str], list[Record]] = {}

    def all(self) -> list[Record]:
        """Every record read so far."""
        return [record for records in self._read.values() for record in records]

    def beside(self, config: RunConfig) -> Sequence[Record]:
        """All records of a configuration's pipeline and data."""
        place = (results_folder(config), config.pipeline)
        if place not in self._read:
            self._read[place] = list(load_records(*place))
        return self._read[place]


def gather(
    experiment: Experiment, runs: Sequence[Match], command: str, settings: Sequence[str] = ()
) -> tuple[Evidence, list[Record]]:
    """What is there of an experiment, and every record beside it.

    Raises:
        UserError: a record file is broken.
    """
    records = Records()
    matches = [match(run, records) for run in runs]
    found = evidence(experiment, matches, beside=records.all(), command=command, settings=settings)
    return found, records.all()


def run_missing(slots: Sequence[Slot], wish: Request) -> None:
    """Run what is missing through Hydra's launcher; a sweep that fails does not keep the next from starting."""
    wanted = [slot.wanted for slot in missing_slots(slots) if wish.wants(slot.wanted)]
    for words in sweeps(wanted):
        line = [*words, *wish.hydra]
        print(f"$ {shell(line)}", file=sys.stderr, flush=True)
        done = subprocess.run([sys.executable, "-m", "hiplora.run", "-m", *line], check=False)
        if done.returncode:
            print(f"That sweep ended with status {done.returncode}; going on.", file=sys.stderr, flush=True)


def reproduce(name: str, overrides: Sequence[str], *, mode: str) -> int:
    """Plan, render or make one table; ``mode`` is "plan", "render" or "make". Returns the exit status.

    Status 1 says that runs which were asked for are still missing.

    Raises:
        UserError: one sentence on what is wrong with the request or with a record.
    """
    from hiplora.compose import check_conf

    check_conf()
    experiment = experiments.load(name)
    wish = request(experiment, overrides)
    # For whoever reads the table: all of it, with whatever launcher is theirs.
    command = shlex.join(["python", "-m", "hiplora.reproduce", name, *wish.settings])
    runs = identify(experiment, wish.settings)
    found, past = gather(experiment, runs, command, wish.settings)
    if mode == "plan":
        print(plan.text(found, past))
        return 0
    if mode == "make" and any(wish.wants(slot.wanted) for slot in missing_slots(found.slots)):
        from hiplora.compose import check_hydra

        check_hydra(wish.hydra)
        _render(found)
        print(plan.text(found, past), file=sys.stderr)
        print("Running them now; Ctrl-C loses only the run that it stops.", file=sys.stderr, flush=True)
        run_missing(found.slots, wish)
        found, _ = gather(experiment, runs, command, wish.settings)
    print(markdown(_render(found)))
    short = [slot for slot in missing_slots(found.slots) if wish.wants(slot.wanted)]
    return 1 if mode == "make" and short else 0


def _render(found: Evidence) -> Table:
    """Write the table in its three formats, and name the files.

    A table under settings of the user's own gets files of its own, whose name ends in a digest of them.
    """
    table = builder(found.experiment.name)(found)
    if found.setting.changed:
        table = replace(table, name=f"{table.name}-{digest({'settings': found.setting.changed})[:6]}")
    for path in write(table, found.setting.folder / "tables"):
        print(f"Written: {path}", file=sys.stderr)
    return table


def main(argv: Sequence[str] | None = None) -> int:
    """Entry of ``python -m hiplora.reproduce``."""
    parser = argparse.ArgumentParser(
        prog="python -m hiplora.reproduce", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("table", help=f"one of {', '.join(experiments.names())}")
    parser.add_argument("overrides", nargs="*", help="Hydra overrides, as for python -m hiplora.run")
    only = parser.add_mutually_exclusive_group()
    only.add_argument("--plan", dest="mode", action="store_const", const="plan", help="say what is there and missing")
    only.add_argument("--render-only", dest="mode", action="store_const", const="render", help="render what is there")
    arguments = parser.parse_intermixed_args(argv)
    try:
        return reproduce(arguments.table, arguments.overrides, mode=arguments.mode or "make")
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("Interrupted. Complete runs are kept; the same command goes on from there.", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
