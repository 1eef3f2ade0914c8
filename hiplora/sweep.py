"""What became of the jobs of a multirun: each leaves a status file, the last act of the sweep reads them all."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback

from hiplora.records import read_json, write_json

STATUS = "status.json"


def write_status(directory: Path, *, failed: str | None) -> None:
    """Record the outcome of one job in its own folder; ``failed`` is the reason, None if it went well."""
    write_json(directory / STATUS, {"failed": failed})


def summary(directory: Path) -> tuple[str, bool]:
    """Words on every job under a sweep's folder, and whether all of them went well."""
    lines, failures = [], 0
    jobs = sorted((path for path in directory.iterdir() if path.name.isdigit()), key=lambda path: int(path.name))
    for job in jobs:
        status = job / STATUS
        reason = read_json(status)["failed"] if status.exists() else "ended without a word (killed?)"
        failures += reason is not None
        lines.append(
            f"  {'FAILED' if reason else 'ok    '} {job.name}: {_overrides(job)}"
            + (f"\n         {reason}" if reason else "")
        )
    head = f"Sweep: {len(jobs) - failures} of {len(jobs)} jobs went well."
    if failures:
        head += " Type the same command again to redo the failed ones; the others are reused."
    return "\n".join([head, *lines]), not failures


def _overrides(job: Path) -> str:
    path = job / ".hydra" / "overrides.yaml"
    if not path.exists():
        return "(did not start)"
    return " ".join(line.removeprefix("- ") for line in path.read_text().splitlines())


class SweepSummary(Callback):
    """Prints the summary when a multirun ends, and ends it with status 1 if a job failed."""

    def on_multirun_end(self, config: Any, **kwargs: Any) -> None:
        """See :class:`hydra.experimental.callback.Callback`."""
        text, well = summary(Path(config.hydra.sweep.dir))
        print(text)
        if not well:
            sys.exit(1)
