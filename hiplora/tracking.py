"""Weights & Biases, where ``logging=wandb`` asks for it: a run per training, and one per record with scores.

Offline unless WANDB_MODE says otherwise, so that no account is needed; ``wandb sync`` uploads the folders later.
Records and ``curve.jsonl`` hold the same numbers and are written first: a W&B that cannot start stops a training
before its first step, and one that fails later costs a warning, never a result.
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
    """A W&B run that can be started; ``options`` are keyword arguments of ``wandb.init``."""

    options: Mapping[str, Any]

    def start(self, *, resumed: bool = False) -> Run:
        """Start the run: anew, or where it was left if ``resumed`` and the server has it.

        An offline run has nothing to go on from; it gets a folder of its own, with the same id.

        Raises:
            UserError: W&B is not installed, or refuses.
        """
        init = _wandb_init()
        options = dict(self.options)
        if "WANDB_MODE" not in os.environ:
            options["mode"] = "offline"
        if resumed:
            options["resume"] = "allow"
        with disk_errors(options["dir"]):
            os.makedirs(options["dir"], exist_ok=True)  # else W&B goes to the system's temporary folder
        try:
            run = init(**options)
            return Run(run, first=run.step if run.resumed else 0)
        except Exception as error:
            raise UserError(
                f"W&B could not be started ({_reason(error)}); type WANDB_MODE=offline in front of the command, "
                "or logging=plain."
            ) from error


class Run:
    """A started W&B run. What fails from here on is told once and ends the tracking, not the work."""

    def __init__(self, run: Any, *, first: int) -> None:
        self._run = run
        self._first = first  # the first step it does not have

    def curve(self, entries: Iterable[Mapping[str, float]]) -> None:
        """Take down optimizer steps, as far as the run does not have them."""
        for entry in entries:
            step = int(entry["step"])
            if step >= self._first:
                values = {f"train/{key}": value for key, value in entry.items() if key != "step"}
                self._attempt("log", values, step=step)

    def summary(self, numbers: Mapping[str, float]) -> None:
        """Take down numbers that belong to the run as a whole."""
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
            logger.warning("W&B failed and is left alone from here on (%s); our own files are whole", _reason(error))


@dataclass(frozen=True)
class Tracking:
    """Whether and where runs are tracked; ``folder`` is given to W&B, which makes its own ``wandb`` inside."""

    enabled: bool
    folder: Path

    def check(self) -> None:
        """Refuse, before anything is computed, to track without W&B.

        Raises:
            UserError: it is not installed.
        """
        if self.enabled:
            _wandb_init()

    def curve(self, *, name: str, id: str, kind: str, asked: Mapping[str, Any]) -> Tracker | None:
        """The W&B run of a training, by its name and id; None where nothing is tracked."""
        return self._tracker(name=name, id=id, group=f"{name}-{id}", kind=kind, asked=asked)

    def publish(self, *, name: str, id: str, train: str, kind: str, asked: Mapping[str, Any], numbers: Any) -> None:
        """Give the scores of a written record to W&B, in the group of the training ``train`` that they are of."""
        chosen = self._tracker(name=name, id=id, group=f"{name}-{train}", kind=kind, asked=asked)
        if chosen is None:
            return
        try:
            run = chosen.start()
        except UserError as error:
            logger.warning("the record is written, but not on W&B: %s", error)
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
                "reinit": "create_new",  # a run of the caller's own is left alone
            }
        )


def flat(metrics: Any, prefix: str = "") -> dict[str, float]:
    """The numbers of nested dictionaries and lists, by their path: ``adapted/gsm8k/acc``."""
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
        from wandb import init  # by name: a folder called wandb would pass for an empty module
    except ImportError as error:
        raise UserError("logging=wandb needs the wandb package: type pip install wandb, or logging=plain.") from error
    return init


def _reason(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split()).rstrip(".")
