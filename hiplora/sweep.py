"""What became of the jobs of a multirun: each leaves a status file, the last act of the sweep reads them all."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, ClassVar

from hydra.experimental.callback import Callback

from hiplora.compose import impossible
from hiplora.disk import FOLDERS, check_folder, read_json, write_atomically, write_json
from hiplora.errors import UserError

STATUS = "status.json"
ROOM = 1 << 16  # bytes; more than Hydra's configuration files and log need


def write_status(directory: Path, *, failed: str | None) -> None:
    """Record the outcome of one job in its own folder; ``failed`` is the reason, None if it went well."""
    write_json(directory / STATUS, {"failed": failed})


def summary(directory: Path, *, interrupted: bool = False) -> tuple[str, bool]:
    """Words on every job under a sweep's folder, and whether all of them went well.

    A job that left no status was killed, or, where the sweep was ``interrupted``, stopped with it.
    """
    lines, well = [], 0
    jobs = sorted((path for path in directory.glob("*") if path.name.isdigit()), key=lambda path: int(path.name))
    for job in jobs:
        word, reason = _outcome(job, interrupted=interrupted)
        well += word == "ok"
        lines.append(f"  {word:<7} {job.name}: {_overrides(job)}" + (f"\n          {reason}" if reason else ""))
    if interrupted:
        head = f"Sweep interrupted: {well} of the {len(jobs)} jobs that had started went well."
        head += " Type the same command again to go on; what was complete is reused."
    else:
        head = f"Sweep: {well} of {len(jobs)} jobs went well."
        if well < len(jobs):
            head += " Type the same command again to redo the failed ones; the others are reused."
    return "\n".join([head, *lines]), well == len(jobs)


def _outcome(job: Path, *, interrupted: bool) -> tuple[str, str | None]:
    status = job / STATUS
    if not status.exists():
        return ("STOPPED", None) if interrupted else ("FAILED", "ended without a word (killed?)")
    reason = read_json(status)["failed"]
    return ("ok", None) if reason is None else ("FAILED", reason)


def _overrides(job: Path) -> str:
    path = job / ".hydra" / "overrides.yaml"
    if not path.exists():
        return "(did not start)"
    return " ".join(line.removeprefix("- ") for line in path.read_text().splitlines())


def check_room(config: Any, folder: Path) -> None:
    """End with one sentence where Hydra could not write its own few files, which it would tell in a traceback."""
    trial = folder / ".trial"
    try:
        for field in FOLDERS:
            check_folder(field, config[field])
        if str(folder).startswith("~"):  # on a command line it was replaced before Hydra read it
            raise UserError(f"outputs_dir={config.outputs_dir} stands in conf/, where ~ is not read; write it in full.")
        write_atomically(trial, bytes(ROOM))
        trial.unlink()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


class SweepSummary(Callback):
    """Prints the summary when a multirun ends, and ends it with status 1 if a job failed.

    ``running`` is the multirun of this process: Hydra calls no one back when it is interrupted or does not compose.
    """

    running: ClassVar[Any] = None

    def on_multirun_start(self, config: Any, **kwargs: Any) -> None:
        """See :class:`hydra.experimental.callback.Callback`."""
        SweepSummary.running = config
        check_room(config, Path(config.hydra.sweep.dir))

    def on_run_start(self, config: Any, **kwargs: Any) -> None:
        """See :class:`hydra.experimental.callback.Callback`."""
        check_room(config, Path(config.hydra.run.dir))

    def on_multirun_end(self, config: Any, **kwargs: Any) -> None:
        """See :class:`hydra.experimental.callback.Callback`."""
        text, well = summary(Path(config.hydra.sweep.dir))
        print(text)
        if not well:
            sys.exit(1)


def interruption() -> str:
    """What to say when Ctrl-C ended this process's run, or its sweep."""
    if SweepSummary.running is None:
        return "Interrupted. What was complete is kept; the same command goes on from there."
    return summary(Path(SweepSummary.running.hydra.sweep.dir), interrupted=True)[0]


def located(error: UserError) -> UserError:
    """A refusal to compose; where this process sweeps, with the combination that it is about."""
    found = None if SweepSummary.running is None else impossible(SweepSummary.running.hydra.overrides.task)
    if found is None:
        return error
    chosen, reason = found
    return UserError(
        f"{chosen} does not compose with the rest of this sweep, of which nothing was started "
        f"({str(reason).rstrip('.')}); correct {chosen}, or leave it out and give it a command of its own."
    )
