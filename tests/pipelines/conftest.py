"""Runs in this process, on a tiny model, with scores that are drawn from a counter."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from hiplora import models
from hiplora.compose import compose
from hiplora.config import RunConfig
from hiplora.pipelines import scoring
from hiplora.tasks import ORDER, primary
from tests.tiny import SMALL, tiny_llama_folder


class Scores:
    """Stands for ``scoring.score``: other numbers at every call, or Ctrl-C."""

    def __init__(self) -> None:
        self.calls = 0
        self.interrupted = False

    def __call__(
        self, model: Any, tokenizer: Any, config: RunConfig, *, tasks: Sequence[str] = ORDER, **told: str
    ) -> tuple[dict[str, Any], list[dict[str, Any]], dict[str, Any]]:
        if self.interrupted:
            raise KeyboardInterrupt
        self.calls += 1
        number = self.calls / 100
        metrics: dict[str, Any] = {task: {primary(task): number, "nll": number, "n": 1} for task in tasks}
        return metrics | {"text": {"nll": number, "tokens": 1}}, [], {"evaluate_s": 0.0}


@pytest.fixture
def scores(monkeypatch: pytest.MonkeyPatch) -> Scores:
    counter = Scores()
    monkeypatch.setattr(scoring, "score", counter)
    return counter


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Backbone and cache."""
    return tiny_llama_folder(tmp_path_factory.mktemp("backbone")), tmp_path_factory.mktemp("cache")


@pytest.fixture
def configured(
    folders: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., RunConfig]]:
    """The configuration of a small run whose outputs and results go to the test's own folder."""
    backbone, cache = folders
    monkeypatch.setenv("HIPLORA_CACHE", str(cache))
    places = [f"model.path={backbone}", f"outputs_dir={tmp_path}/outputs", f"results_dir={tmp_path}/results"]
    yield lambda *words: compose([*SMALL, *places, "training.steps=2", "evaluation.code_execution=off", *words])
    models.forget()
