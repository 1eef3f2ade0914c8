"""Scores of the unadapted backbone: computed once per backbone, data and evaluation settings, and reused."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from hiplora.pipelines import scoring
from hiplora.pipelines.base import Pipeline, Result
from hiplora.records import records_dir

if TYPE_CHECKING:
    from hiplora.config import RunConfig


class BackboneScores(Pipeline):
    """Base scores, the reference of every Retain."""

    def labels(self, config: RunConfig) -> dict[str, Any]:
        """A backbone has no method, task or seed."""
        return {**super().labels(config), "method": "backbone", "task": None, "seed": None}

    def check(self, config: RunConfig) -> None:
        scoring.check(config)

    def identity(self, config: RunConfig) -> dict[str, Any]:
        from hiplora import models

        return {
            "pipeline": "backbone",
            "model": [models.identity(config.model), config.model.dtype],
            # Completions are sampled and rounded differently there: base and adapter share one.
            "device": _device(config),
            "scoring": scoring.identity(config),
        }

    def directory(self, config: RunConfig, identity: str) -> Path:
        return records_dir(Path(config.results_dir) / config.data.name, "backbone")

    def run(self, config: RunConfig, needs: list[dict[str, Any]], identity: str) -> Result:
        from hiplora import models

        backbone = models.load(config.model)
        metrics, samples, timings = scoring.score(
            backbone.model,
            backbone.tokenizer,
            config,
            subject=f"the backbone {config.model.name}",
            remedy="check its weights, or try model.dtype=float32",
            answers=scoring.answers_path(config, identity, models.describe(backbone)),
        )
        return Result(
            {
                "metrics": {"base": metrics},
                "timings": timings,
                "sandbox": scoring.sandbox_name(config),
                "device": models.describe(backbone),
            },
            samples,
        )

    def clean(self, config: RunConfig, identity: str) -> None:
        scoring.forget_answers(config, identity)


def _device(config: RunConfig) -> str:
    """``cpu``, ``cuda``, or ``cpu, float32`` where the backbone's own dtype is too slow there."""
    from hiplora import models

    arithmetic = models.arithmetic(config.model)
    own = [] if arithmetic == config.model.dtype else [arithmetic]
    return ", ".join([models.device_type(config.model), *own])
