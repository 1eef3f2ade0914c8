"""Runs in this process, on a tiny model, with scores that are drawn from a counter."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hiplora.pipelines.base import Config
from hiplora.report.terminal import describe
from hiplora.stages.make import Engine, Outcome
from hiplora.stages.score import Score
from hiplora.stages.store import Store
from hiplora.tasks import primary
from hiplora.tracking import Tracking
from tests.tiny import SMALL


class Run:
    """What a configuration led to: outcomes by stage, and the kinds of what was made."""

    def __init__(self, config: Config, *, but_last: bool = False) -> None:
        tracking = Tracking(enabled=False, folder=Path(config.outputs_dir))
        engine = Engine(Store(config.places), tracking, force=config.force)
        stages: Any = config.stages()
        self.outcomes: list[Outcome] = engine.run(stages[:-1] if but_last else stages)
        self.made = [line.split()[0] for line in engine.made]
        self.lines, self._engine = engine.made, engine

    @property
    def text(self) -> str:
        """What the run prints when it is done."""
        return describe(self.outcomes, self._engine)

    @property
    def record(self) -> Any:
        """The last record, which the run is about."""
        return self.outcomes[-1].record


class Scores:
    """Stands for the evaluation: other numbers at every call, or Ctrl-C."""

    def __init__(self) -> None:
        self.calls = 0
        self.interrupted = False

    def of(self, stage: Score, model: Any, tokenizer: Any, job: Any) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        if self.interrupted:
            raise KeyboardInterrupt
        self.calls += 1
        number = self.calls / 100
        metrics: dict[str, Any] = {task.name: {primary(task.name): number, "nll": number} for task in stage.benchmarks}
        return metrics | {"text": {"nll": number, "tokens": 1.0}}, []


@pytest.fixture
def scores(monkeypatch: pytest.MonkeyPatch) -> Scores:
    counter = Scores()
    monkeypatch.setattr(Score, "_scores", lambda stage, *rest: counter.of(stage, *rest))
    return counter


@pytest.fixture
def small() -> list[str]:
    """The settings of a small run."""
    return [*SMALL, "training.steps=2", "evaluation.code_execution=off"]
