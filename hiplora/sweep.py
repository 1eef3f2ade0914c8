"""What became of the jobs of a multirun: each leaves a status file, the last act of the sweep reads them all."""

from __future__ import annotations

import sys
import traceback
from pathlib import Path
from typing import Any, ClassVar

from hydra.experimental.callback import Callback

from hiplora.composition import impossible
from hiplora.disk import FOLDERS, check_folder, read_json, write_atomically, write_json
from hiplora.errors import UserError

STATUS = "status.json"
FAILED = ("FAILED", "ended without a status (killed?)")
STOPPED = ("STOPPED", None)
UNKNOWN = ("UNKNOWN", "left no status, and was not cancelled: it may still be running")
ENDING = ("basic_launcher", "joblib")  # launchers whose jobs end with this process
ROOM = 1 << 16  # bytes; more than Hydra's configuration files and log need


def write_status(directory: Path, *, failed: str | None) -> None:
    """Record the outcome of one job in its own folder; ``failed`` is the reason, None if it went well."""
    write_json(directory / STATUS, {"failed": failed})


def summary(directory: Path, *, absent: tuple[str, str | None] | None = None) -> tuple[str, bool]:
    """Words on every job under a sweep's folder, and whether all of them went well.

    ``absent`` says what a job without a status is, in a word and a sentence, where the sweep did not end by itself.
    """
    lines, well = [], 0
    jobs = sorted((path for path in directory.glob("*") if path.name.isdigit()), key=lambda path: int(path.name))
    for job in jobs:
        word, reason = _outcome(job) or absent or FAILED
        well += word == "ok"
        lines.append(f"  {word:<7} {job.name}: {_overrides(job)}" + (f"\n          {reason}" if reason else ""))
        logs = sorted(job.glob("*.log")) if word not in ("ok", "STOPPED") else []
        lines += [f"          log: {path}" for path in logs if path.stat().st_size]
    if absent is not None:
        head = f"{well} of the {len(jobs)} jobs that had started went well."
        head += " Type the same command again to go on; what was complete is reused."
    else:
        head = f"Sweep: {well} of {len(jobs)} jobs went well."
        if well < len(jobs):
            head += " Type the same command again to redo the failed ones; the others are reused."
    return "\n".join([head, *lines]), well == len(jobs)


def _outcome(job: Path) -> tuple[str, str | None] | None:
    """What a job has left about itself."""
    status = job / STATUS
    if not status.exists():
        return None
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


def interruption(error: KeyboardInterrupt) -> str:
    """What to say when Ctrl-C ended this process's run, or its sweep, whose submitted jobs are then cancelled."""
    config = SweepSummary.running
    if config is None:
        return "Interrupted. What was complete is kept; the same command goes on from there."
    jobs = submitted(error)
    ended = _cancelled(jobs) if jobs else any(name in str(config.hydra.launcher._target_) for name in ENDING)
    return f"Sweep interrupted: {summary(_folder(config), absent=STOPPED if ended else UNKNOWN)[0]}" + _logs(config)


def broken_launcher(error: Exception) -> str:
    """What to say when a launcher ended the sweep with an error, such as that of a worker that was killed.

    What submitit has started goes on without it, and is waited for.
    """
    config = SweepSummary.running
    jobs = submitted(error)
    if not all(job.done() for job in jobs):
        print("The launcher has stopped at a job that died; waiting for the others.", file=sys.stderr, flush=True)
        for job in jobs:  # Ctrl-C here finds them in this frame, and cancels them
            job.wait()
    reason = next(iter(str(error).strip().splitlines()), "")[:300]
    ended = jobs or any(name in str(config.hydra.launcher._target_) for name in ENDING)
    text = summary(_folder(config), absent=FAILED if ended else UNKNOWN)[0]
    why = f"{type(error).__name__}: {reason}; HYDRA_FULL_ERROR=1 shows where"
    return f"The launcher stopped the sweep ({why}): {text}{_logs(config)}"


def submitted(error: BaseException) -> list[Any]:
    """The jobs that submitit's launcher had started when it was stopped by this error; none of other launchers."""
    submitit = sys.modules.get("submitit")
    if submitit is None:
        return []
    for frame, _ in traceback.walk_tb(error.__traceback__):
        for value in frame.f_locals.values():
            if isinstance(value, list) and value and all(isinstance(each, submitit.Job) for each in value):
                return value
    return []


def _cancelled(jobs: list[Any]) -> bool:
    """Cancel what has not ended; whether that could be done for all."""
    well = True
    for job in jobs:
        try:
            if not job.done():
                job.cancel()
        except Exception as error:  # whatever the cluster's own command says
            print(f"Job {job.job_id} could not be cancelled: {error}", file=sys.stderr)
            well = False
    return well


def _folder(config: Any) -> Path:
    return Path(config.hydra.sweep.dir)


def _logs(config: Any) -> str:
    """Where a launcher keeps logs of its own."""
    logs = _folder(config) / ".submitit"
    return f"\n  What each job printed is in {logs}/<job>/*.out and *.err." if logs.is_dir() else ""


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
