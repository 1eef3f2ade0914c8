"""The main job: one adapter, trained on one task, scored on all four, and what it forgot."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from hiplora.pipelines import scoring
from hiplora.pipelines.base import Pipeline, Result
from hiplora.records import adapter_dir, records_dir

if TYPE_CHECKING:
    from hiplora.config import RunConfig


class Single(Pipeline):
    """Train, evaluate, retain (Table 1)."""

    def check(self, config: RunConfig) -> None:
        scoring.check(config)

    def identity(self, config: RunConfig) -> dict[str, Any]:
        from hiplora.pipelines.train import Train

        return {"pipeline": "single", "train": Train().identity(config), "scoring": scoring.identity(config)}

    def requires(self, config: RunConfig) -> list[RunConfig]:
        return [config.but(pipeline="train"), config.but(pipeline="backbone", force=False)]

    def directory(self, config: RunConfig, identity: str) -> Path:
        return records_dir(Path(config.results_dir) / config.data.name, "single")

    def reusable(self, config: RunConfig, record: dict[str, Any]) -> bool:
        """A record may have come with the project; who asks for the run also wants its adapter."""
        return adapter_dir(config.outputs_dir, record["needs"]["train"]).is_dir()

    def run(self, config: RunConfig, needs: list[dict[str, Any]], identity: str) -> Result:
        from hiplora import models
        from hiplora.evaluation.retention import retention

        trained, base = needs
        backbone = models.load(config.model)
        adapted = config.method.load(backbone.model, adapter_dir(config.outputs_dir, trained["id"]))
        try:
            metrics, samples, timings = scoring.score(adapted, backbone.tokenizer, config)
        finally:
            config.method.detach(adapted)
        before = base["metrics"]["base"]
        return Result(
            {
                "metrics": {
                    "base": before,
                    "adapted": metrics,
                    "retain": retention(before, metrics, trained_on=config.task.name),
                },
                "training": trained["training"],
                "needs": {"train": trained["id"], "backbone": base["id"]},
                "timings": {**trained["timings"], **timings},
                "sandbox": scoring.sandbox_name(config),
                "device": models.describe(backbone),
            },
            samples,
        )
