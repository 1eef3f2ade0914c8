"""The main job: one adapter, trained on one task, scored on all four, and what it forgot."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from hiplora.pipelines import scoring
from hiplora.pipelines.adapter import trained
from hiplora.pipelines.base import Pipeline, Result
from hiplora.records import adapter_dir, find_record, records_dir

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

    def stale(self, config: RunConfig, record: dict[str, Any]) -> str | None:
        """A record may have come with the project; who asks for the run also wants its adapter."""
        return outdated(config, record) if _adapter(config, record).is_dir() else "its adapter is not here"

    def run(self, config: RunConfig, needs: list[dict[str, Any]], identity: str) -> Result:
        from hiplora import models
        from hiplora.evaluation.retention import retention

        training, base = needs
        backbone = models.load(config.model)
        with trained(config, backbone, training["id"]) as adapted:
            metrics, samples, timings = scoring.score(
                adapted,
                backbone.tokenizer,
                config,
                subject=f"the adapter {training['id']} ({config.method.name}, {config.task.name}, seed {config.seed})",
                remedy="it has diverged: lower training.lr, which trains another",
                answers=scoring.answers_path(config, identity, models.describe(backbone), training["training"]),
            )
        before = base["metrics"]["base"]
        return Result(
            {
                "metrics": {
                    "base": before,
                    "adapted": metrics,
                    "retain": retention(before, metrics, trained_on=config.task.name),
                },
                "training": training["training"],
                "needs": {"train": training["id"], "backbone": base["id"]},
                "timings": {**training["timings"], **timings},
                "sandbox": scoring.sandbox_name(config),
                "device": models.describe(backbone),
            },
            samples,
        )

    def clean(self, config: RunConfig, identity: str) -> None:
        scoring.forget_answers(config, identity)


def outdated(config: RunConfig, record: dict[str, Any]) -> str | None:
    """Why a single run's scores are not those of the adapter that is here; None where they are, or none is here.

    The record quotes the training of the adapter it scored, its seconds too: no two trainings are told alike, and
    no clock has to be trusted. A folder without the record of its training has just been replaced.
    """
    folder = _adapter(config, record)
    trained = find_record(folder, folder.name)
    if not folder.is_dir() or (trained is not None and trained["training"] == record["training"]):
        return None
    return "its adapter was trained anew"


def _adapter(config: RunConfig, record: dict[str, Any]) -> Path:
    return adapter_dir(config.outputs_dir, record["needs"]["train"])
