"""Scores of one model on the benchmarks and on general text, as backbone and adapters alike are scored."""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hiplora.config import digest
from hiplora.errors import UserError
from hiplora.records import answers_dir
from hiplora.tasks import ORDER, task_class

if TYPE_CHECKING:
    from hiplora.config import RunConfig
    from hiplora.tasks.base import Task

# Raise it when a change of the code changes scores: records are then made anew.
VERSION = 1
# Fields of the evaluation section that change scores by rounding only.
BOOKKEEPING = ("batch_tokens", "code_execution")


def identity(config: RunConfig) -> dict[str, Any]:
    """What determines the scores, given the model."""
    from hiplora.tasks.source import Source

    asked = _tasks(config, benchmarks(config))
    settings = {key: value for key, value in asdict(config.evaluation).items() if key not in BOOKKEEPING}
    execution = config.evaluation.code_execution
    return {
        "evaluation": VERSION,
        **settings,
        # Both sandboxes give the same verdicts; without one, or with none at all, the numbers mean something else.
        "code_execution": execution if execution in ("off", "unsafe") else "sandboxed",
        "forms": [[task.name, task.form, task.target] for task in asked],
        "data": Source(config.data).fingerprint("text", *(name for task in asked for name in task.datasets)),
    }


def benchmarks(config: RunConfig) -> tuple[str, ...]:
    """What a run is scored on: the four, and what it trains on where that is none of them."""
    return ORDER if config.task.name in ORDER else (*ORDER, config.task.name)


def _tasks(config: RunConfig, names: Sequence[str]) -> list[Task]:
    """The benchmarks as they are asked; the one that is trained, with the target it is trained for."""
    return [
        task_class(name)(
            scoring=config.evaluation.scoring,
            target=config.task.target if name == config.task.name else "answer",
        )
        for name in names
    ]


def check(config: RunConfig) -> None:
    """Refuse to start where the sandbox that the evaluation will need does not work.

    Raises:
        UserError: no backend works; the sentence names ``evaluation.code_execution=off``.
    """
    from hiplora.evaluation.sandbox import choose_backend

    if config.evaluation.code_execution != "off":
        choose_backend(config.evaluation.code_execution)


def score(
    model: Any,
    tokenizer: Any,
    config: RunConfig,
    *,
    subject: str,
    remedy: str,
    tasks: Sequence[str] | None = None,
    answers: Path | None = None,
) -> tuple[dict[str, Any], list[dict[str, Any]], dict[str, Any]]:
    """Score a model that is already in memory, on all its :func:`benchmarks` or some, and on general text.

    Args:
        subject: what the model is, for the sentence that refuses outputs that are not finite.
        remedy: what to do about them.
        answers: file that keeps the model's answers until the caller has its scores, and gives those it has.

    Returns:
        Metrics by benchmark (fractions, nats per token), per-sample predictions, and the seconds of this process.

    Raises:
        UserError: a metric is nan or infinite.
    """
    from hiplora.evaluation.answers import Answers
    from hiplora.evaluation.engine import evaluate
    from hiplora.evaluation.text import text_cross_entropy
    from hiplora.tasks.source import Source

    started = time.perf_counter()
    source = Source(config.data)
    asked = _tasks(config, benchmarks(config) if tasks is None else tasks)
    # First, since it takes seconds: a model whose outputs are not finite is then refused before the benchmarks.
    kept = Answers(answers)
    text = kept.get("text")
    if text is None:
        text = text_cross_entropy(model, tokenizer, source, tokens=config.evaluation.text_tokens)
        _check_finite({"text": text}, subject, remedy)
        kept.keep({"text": text})
    scores = evaluate(
        model,
        tokenizer,
        tasks=asked,
        source=source,
        evaluation=config.evaluation,
        seed=config.evaluation.seed,
        answers=kept,
    )
    metrics: dict[str, Any] = {name: {**score.metrics, "n": score.n} for name, score in scores.items()}
    _check_finite(metrics, subject, remedy)
    metrics["text"] = text
    samples = [{"benchmark": name, **sample} for name, score in scores.items() for sample in score.samples]
    return metrics, samples, {"evaluate_s": round(time.perf_counter() - started, 2)}


def answers_path(config: RunConfig, identity: str, *model: Any) -> Path:
    """The file of a run's answers. ``model`` is what tells it from others that the run may have scored before it was
    stopped, such as an adapter that was trained anew since; JSON-serialisable."""
    return answers_dir(config.outputs_dir, identity) / f"{digest({'model': model})}.jsonl"


def forget_answers(config: RunConfig, identity: str) -> None:
    """Remove them, once a record holds what came of them."""
    shutil.rmtree(answers_dir(config.outputs_dir, identity), ignore_errors=True)


def _check_finite(metrics: Mapping[str, Mapping[str, float | None]], subject: str, remedy: str) -> None:
    for benchmark, scores in metrics.items():
        for metric, value in scores.items():
            if value is not None and not math.isfinite(value):
                raise UserError(
                    f"The {metric} of {benchmark} is {value}: the outputs of {subject} are not finite; {remedy}."
                )


def sandbox_name(config: RunConfig) -> str:
    """The backend that executed model-written code, or ``off``."""
    from hiplora.evaluation.sandbox import choose_backend

    requested = config.evaluation.code_execution
    return "off" if requested == "off" else choose_backend(requested).name
