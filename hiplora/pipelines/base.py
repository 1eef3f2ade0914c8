"""The interface of a pipeline: what identifies its result, what it needs, how it is made."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hiplora.config import RunConfig


@dataclass(frozen=True)
class Result:
    """What a pipeline hands to its record: JSON-serialisable fields, and per-sample predictions."""

    fields: dict[str, Any]
    samples: list[dict[str, Any]] = field(default_factory=list)


class Pipeline:
    """One kind of run. A pipeline never calls another: it names what it requires and is given the records."""

    def labels(self, config: RunConfig) -> dict[str, Any]:
        """Words a person looks a record up by; they do not identify it."""
        return {
            "method": config.method.name,
            "task": config.task.name,
            "seed": config.seed,
            "scale": config.scale,
            "model": config.model.name,
            "data": config.data.name,
        }

    def check(self, config: RunConfig) -> None:
        """Refuse, before anything is computed, what could not be finished."""

    def identity(self, config: RunConfig) -> dict[str, Any]:
        """Everything that determines the result, and nothing else."""
        raise NotImplementedError

    def requires(self, config: RunConfig) -> list[RunConfig]:
        """Configurations of the runs whose records :meth:`run` is given, in this order."""
        return []

    def directory(self, config: RunConfig, identity: str) -> Path:
        """Where the record lies."""
        raise NotImplementedError

    def stale(self, config: RunConfig, record: dict[str, Any]) -> str | None:
        """Why a record that exists no longer stands for the run, in words; None where it does.

        It does not where the run also leaves files that are gone, or where what it was made from was made anew.
        """
        return None

    def complete(self, config: RunConfig, identity: str) -> None:
        """Add to a finished run's files what is asked for and not part of its identity; nothing where there is none."""

    def run(self, config: RunConfig, needs: list[dict[str, Any]], identity: str) -> Result:
        """Compute the result from the configuration and the records of what it requires."""
        raise NotImplementedError

    def clean(self, config: RunConfig, identity: str) -> None:
        """Remove what is of no use once the record is written."""
