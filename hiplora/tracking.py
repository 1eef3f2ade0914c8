"""Weights & Biases, with ``logging=wandb``: a run per training, and one per record with scores.

Offline unless WANDB_MODE says otherwise, so that no account is needed; ``wandb sync`` uploads the folders later.
Records and ``curve.jsonl`` hold the same numbers and are written first. If W&B cannot start, a training stops before
its first step; if W&B fails later, it causes a warning and no result is lost.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import Any

from hiplora.disk import disk_errors
from hiplora.errors import UserError

logger = logging.getLogger(__name__)

PROJECT = "hiplora"


@dataclass(frozen=True)
class Tracker:
    """A W&B run that is not started yet; ``options`` are keyword arguments of ``wandb.init``."""

    options: Mapping[str, Any]

    def start(self, *, resumed: bool = False) -> Run:
        """Start the run; with ``resumed``, continue it if the server has it.

        An offline run cannot be continued; it gets another folder with the same id.

        Raises:
            UserError: W&B is not installed, or cannot start.
        """
        init = _wandb_init()
        options = dict(self.options)
        if "WANDB_MODE" not in os.environ:
            options["mode"] = "offline"
        if resumed:
            options["resume"] = "allow"
        with disk_errors(options["dir"]):
            os.makedirs(options["dir"], exist_ok=True)  # without it W&B uses the system's temporary folder
        try:
            run = init(**options)
            return Run(run, first=run.step if run.resumed else 0)
        except Exception as error:
            raise UserError(
                f"W&B could not be started ({_reason(error)}); type WANDB_MODE=offline in front of the command, "
                "or logging=plain."
            ) from error


class Run:
    """A started W&B run. A failure from here on causes one warning and ends the tracking, not the work."""

    def __init__(self, run: Any, *, first: int) -> None:
        self._run = run
        self._first = first  # the first step that the run does not have

    def curve(self, entries: Iterable[Mapping[str, float]]) -> None:
        """Log the optimizer steps that the run does not have yet."""
        for entry in entries:
            step = int(entry["step"])
            if step >= self._first:
                values = {f"train/{key}": value for key, value in entry.items() if key != "step"}
                self._attempt("log", values, step=step)

    def summary(self, numbers: Mapping[str, float]) -> None:
        """Log numbers of the run as a whole."""
        self._attempt("summary.update", dict(numbers))

    def finish(self, *, failed: bool = False) -> None:
        """End the run."""
        self._attempt("finish", exit_code=int(failed))
        self._run = None

    def _attempt(self, method: str, *values: Any, **options: Any) -> None:
        if self._run is None:
            return
        try:
            attrgetter(method)(self._run)(*values, **options)
        except Exception as error:
            self._run = None
            logger.warning("W&B failed (%s) and is not used any more; our own files are complete", _reason(error))


@dataclass(frozen=True)
class Tracking:
    """Whether and where runs are tracked; W&B makes its own folder ``wandb`` inside ``folder``."""

    enabled: bool
    folder: Path

    def check(self) -> None:
        """Refuse to track without W&B before anything is computed.

        Raises:
            UserError: it is not installed.
        """
        if self.enabled:
            _wandb_init()

    def curve(self, *, name: str, id: str, kind: str, asked: Mapping[str, Any]) -> Tracker | None:
        """The W&B run of a training, to be started; None if tracking is off."""
        return self._tracker(name=name, id=id, group=f"{name}-{id}", kind=kind, asked=asked)

    def publish(self, *, name: str, id: str, group: str, kind: str, asked: Mapping[str, Any], numbers: Any) -> None:
        """Log the scores of a written record as a W&B run, in the group of their adapter's training."""
        chosen = self._tracker(name=name, id=id, group=group, kind=kind, asked=asked)
        if chosen is None:
            return
        try:
            run = chosen.start()
        except UserError as error:
            logger.warning("the record is written, but its scores are not on W&B: %s", error)
            return
        run.summary(flat(numbers))
        run.finish()

    def _tracker(self, *, name: str, id: str, group: str, kind: str, asked: Mapping[str, Any]) -> Tracker | None:
        if not self.enabled:
            return None
        return Tracker(
            {
                "project": PROJECT,
                "name": f"{name}-{id}",
                "id": id,
                "group": group,
                "job_type": kind,
                "config": dict(asked),
                "dir": str(self.folder),
                "reinit": "create_new",  # leaves the caller's own run alone
            }
        )


def flat(metrics: Any, prefix: str = "") -> dict[str, float]:
    """The numbers in nested dictionaries and lists by path, such as ``adapted/gsm8k/acc``."""
    if isinstance(metrics, Mapping):
        inside = list(metrics.items())
    elif isinstance(metrics, list):
        inside = list(enumerate(metrics))
    else:
        number = isinstance(metrics, int | float) and not isinstance(metrics, bool)
        return {prefix: metrics} if number else {}
    found: dict[str, float] = {}
    for key, value in inside:
        found |= flat(value, f"{prefix}/{key}" if prefix else str(key))
    return found


def _wandb_init() -> Callable[..., Any]:
    try:
        from wandb import init  # by name, since a folder called wandb would import as an empty module
    except ImportError as error:
        raise UserError("logging=wandb needs the wandb package: type pip install wandb, or logging=plain.") from error
    return init


def _reason(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split()).rstrip(".")
