"""The outcomes of a multirun's jobs: each job writes a status file, and the summary at the end reads them all."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

from hydra.experimental.callback import Callback

from hiplora.disk import FOLDERS, check_folder, read_json, write_atomically, write_json
from hiplora.errors import UserError
from hiplora.hydra_compose import impossible

STATUS = "status.json"
HYDRA = ".hydra"  # the folder in a job's own into which Hydra writes its overrides
FAILED = ("FAILED", "ended without a status (killed?)")
STOPPED = ("STOPPED", None)
UNKNOWN = ("UNKNOWN", "wrote no status and was not cancelled: it may still be running")
IN_TURN = "basic_launcher"  # the launcher that runs jobs one after the other, in this process
ENDING = (IN_TURN, "joblib")  # launchers whose jobs end with this process
ROOM = 1 << 16  # bytes; more than Hydra's configuration files and log take


def write_status(directory: Path, *, failed: str | None) -> None:
    """Write the outcome of one job into its folder; ``failed`` is the reason, None if it succeeded."""
    write_json(directory / STATUS, {"failed": failed})


def summary(directory: Path, *, absent: tuple[str, str | None] | None = None) -> tuple[str, bool]:
    """A text about every job under a sweep's folder, and whether all of them succeeded.

    ``absent`` describes a job without a status, as a word and a reason, if the sweep did not end by itself.
    """
    lines, well = [], 0
    jobs = [job for job in _jobs(directory) if (job / STATUS).exists() or SweepSummary.before.get(job) != _written(job)]
    for job in jobs:
        word, reason = _outcome(job) or absent or FAILED
        well += word == "ok"
        name = job.relative_to(directory)
        lines.append(f"  {word:<7} {name}: {_overrides(job)}" + (f"\n          {reason}" if reason else ""))
        logs = sorted(job.glob("*.log")) if word not in ("ok", "STOPPED") else []
        lines += [f"          log: {path}" for path in logs if path.stat().st_size]
    if absent is not None:
        head = f"{well} of the {len(jobs)} jobs that had started succeeded."
        head += " Type the same command again to continue; finished work is reused."
    else:
        head = f"Sweep: {well} of {len(jobs)} jobs succeeded."
        if well < len(jobs):
            head += " Type the same command again to redo the failed ones; the others are reused."
    return "\n".join([head, *lines]), 0 < well == len(jobs)


def _jobs(directory: Path) -> list[Path]:
    """The folders of jobs below a sweep's folder: a number, or whatever hydra.sweep.subdir makes of a job."""
    named = {path.parent for path in directory.rglob(HYDRA) if path.parent != directory}
    numbered = {path for path in directory.glob("*") if path.name.isdigit()}
    return sorted(named | numbered, key=lambda path: (int(path.name) if path in numbered else -1, str(path)))


def _written(job: Path) -> int:
    """When Hydra wrote a job's overrides, in nanoseconds; 0 if it has not."""
    path = job / HYDRA / "overrides.yaml"
    return path.stat().st_mtime_ns if path.exists() else 0


def forget(job: Path) -> None:
    """Remove the outcome of an earlier job in the same folder."""
    (job / STATUS).unlink(missing_ok=True)


def _outcome(job: Path) -> tuple[str, str | None] | None:
    """The word and reason of a job's status file; None without one."""
    status = job / STATUS
    if not status.exists():
        return None
    reason = read_json(status)["failed"]
    return ("ok", None) if reason is None else ("FAILED", reason)


def _overrides(job: Path) -> str:
    path = job / HYDRA / "overrides.yaml"
    if not path.exists():
        return "(did not start)"
    return " ".join(line.removeprefix("- ") for line in path.read_text().splitlines())


def check_room(config: Any, folder: Path) -> None:
    """Exit with one sentence if Hydra could not write its own files, for which it would print a traceback."""
    trial = folder / ".trial"
    try:
        for field in FOLDERS:
            check_folder(field, config[field])
        if str(folder).startswith("~"):  # from conf/, since on a command line it is replaced before Hydra reads it
            raise UserError(f"outputs_dir={config.outputs_dir} in conf/ must be a full path: ~ is not replaced there.")
        write_atomically(trial, bytes(ROOM))
        trial.unlink()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


class SweepSummary(Callback):
    """When a multirun ends, runs the jobs put off, prints the summary, and exits with status 1 if a job failed.

    ``running`` is the configuration of this process's multirun, which is needed where Hydra makes no callback: when the
    multirun is interrupted or does not compose. ``before`` holds the jobs of earlier sweeps in the same folder.
    """

    running: ClassVar[Any] = None
    before: ClassVar[dict[Path, int]] = {}
    later: ClassVar[list[Callable[[], None]]] = []

    def on_multirun_start(self, config: Any, **kwargs: Any) -> None:
        """See :class:`hydra.experimental.callback.Callback`."""
        SweepSummary.running = config
        folder = Path(config.hydra.sweep.dir)
        check_room(config, folder)
        SweepSummary.before = {job: _written(job) for job in _jobs(folder)}
        for job in SweepSummary.before:
            forget(job)

    def on_run_start(self, config: Any, **kwargs: Any) -> None:
        """See :class:`hydra.experimental.callback.Callback`."""
        check_room(config, Path(config.hydra.run.dir))

    def on_multirun_end(self, config: Any, **kwargs: Any) -> None:
        """See :class:`hydra.experimental.callback.Callback`."""
        while SweepSummary.later:
            SweepSummary.later.pop(0)()
        text, well = summary(Path(config.hydra.sweep.dir))
        print(text)
        if not well:
            sys.exit(1)


def in_turn() -> bool:
    """Whether this process runs the jobs of its multirun one after the other, so that one can be put off."""
    running = SweepSummary.running
    return running is not None and IN_TURN in str(running.hydra.launcher._target_)


def put_off(job: Callable[[], None]) -> None:
    """Run a job after the others of this process's multirun."""
    SweepSummary.later.append(job)


def interruption(error: KeyboardInterrupt) -> str:
    """Text about the run or sweep that Ctrl-C ended; jobs that the sweep submitted are cancelled."""
    config = SweepSummary.running
    if config is None:
        return "Interrupted. Finished work is kept; the same command resumes."
    jobs = submitted(error)
    ended = _cancelled(jobs) if jobs else any(name in str(config.hydra.launcher._target_) for name in ENDING)
    return f"Sweep interrupted: {summary(_folder(config), absent=STOPPED if ended else UNKNOWN)[0]}" + _logs(config)


def broken_launcher(error: Exception) -> str:
    """Text about a sweep whose launcher raised an error, for example because a worker was killed.

    Jobs that submitit has started continue without it; this function waits for them.
    """
    config = SweepSummary.running
    jobs = submitted(error)
    if not all(job.done() for job in jobs):
        print("A job died and the launcher stopped; waiting for the other jobs.", file=sys.stderr, flush=True)
        for job in jobs:  # if Ctrl-C is pressed here, submitted() finds them in this frame and they are cancelled
            job.wait()
    reason = next(iter(str(error).strip().splitlines()), "")[:300]
    ended = jobs or any(name in str(config.hydra.launcher._target_) for name in ENDING)
    text = summary(_folder(config), absent=FAILED if ended else UNKNOWN)[0]
    why = f"{type(error).__name__}: {reason}; HYDRA_FULL_ERROR=1 shows where"
    return f"The launcher stopped the sweep ({why}): {text}{_logs(config)}"


def submitted(error: BaseException) -> list[Any]:
    """The jobs that submitit's launcher had started before this error; empty for other launchers."""
    submitit = sys.modules.get("submitit")
    if submitit is None:
        return []
    for frame, _ in traceback.walk_tb(error.__traceback__):
        for value in frame.f_locals.values():
            if isinstance(value, list) and value and all(isinstance(each, submitit.Job) for each in value):
                return value
    return []


def _cancelled(jobs: list[Any]) -> bool:
    """Cancel the jobs that have not ended; returns whether all could be cancelled."""
    well = True
    for job in jobs:
        try:
            if not job.done():
                job.cancel()
        except Exception as error:  # the cluster's own command may fail in any way
            print(f"Job {job.job_id} could not be cancelled: {error}", file=sys.stderr)
            well = False
    return well


def _folder(config: Any) -> Path:
    return Path(config.hydra.sweep.dir)


def _logs(config: Any) -> str:
    """A line that says where submitit's logs are; empty for other launchers."""
    logs = _folder(config) / ".submitit"
    return f"\n  What each job printed is in {logs}/<job>/*.out and *.err." if logs.is_dir() else ""


def located(error: UserError) -> UserError:
    """The refusal to compose; in a sweep, with the combination of values that does not compose."""
    found = None if SweepSummary.running is None else impossible(SweepSummary.running.hydra.overrides.task)
    if found is None:
        return error
    chosen, reason = found
    return UserError(
        f"{chosen} does not compose with the rest of this sweep, so nothing was started "
        f"({str(reason).rstrip('.')}); correct {chosen}, or leave it out and run it with a separate command."
    )
