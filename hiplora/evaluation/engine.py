"""Scores of one model on the benchmarks: lm-eval drives, the project's tasks ask and score.

All tasks go through one call of lm-eval's ``evaluate``, so that their requests are batched together. (Its
``simple_evaluate`` would also reseed the global random states and collect the environment.)
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from hiplora.tasks import task_class
from hiplora.tasks.base import Requests, Task

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedTokenizerBase

    from hiplora.config import EvaluationConfig
    from hiplora.evaluation.answers import Answers
    from hiplora.tasks.source import Source

Logged = dict[str, dict[str, Any]]


@dataclass
class TaskScore:
    """One benchmark's result.

    Args:
        metrics: fractions of 1 and nats per token; None for a pass@k that was not measured.
        n: number of items.
        samples: per item its id and the model's outputs.
    """

    metrics: dict[str, float | None]
    n: int
    samples: list[dict[str, Any]] = field(default_factory=list)


def evaluate(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    *,
    tasks: Sequence[str | Task],
    source: Source,
    evaluation: EvaluationConfig,
    seed: int,
    progress: bool = True,
    answers: Answers | None = None,
) -> dict[str, TaskScore]:
    """Evaluate a causal language model, plain or PEFT, as it is; its training flags are left as found.

    Args:
        tasks: names, asked in the form that ``evaluation`` gives, or tasks with settings of their own.
        seed: of the sampled completions; no global random state is used.
        answers: that this model has given already, and where new ones are kept.
    """
    from hiplora.evaluation.forward import evaluating
    from hiplora.evaluation.lm import InMemoryLM

    chosen = [task_class(task)(scoring=evaluation.scoring) if isinstance(task, str) else task for task in tasks]
    asked = {task.name: task.requests(source, evaluation) for task in chosen}
    with evaluating(model), _quiet():
        lm = InMemoryLM(
            model, tokenizer, batch_tokens=evaluation.batch_tokens, seed=seed, progress=progress, answers=answers
        )
        results = _run(lm, [requests for group in asked.values() for requests in group])
    return {
        task.name: _score(task, asked[task.name], results, evaluation=evaluation, progress=progress) for task in chosen
    }


def _run(lm: Any, asked: Sequence[Requests]) -> dict[str, Any]:
    from lm_eval.evaluator import evaluate as lm_evaluate

    from hiplora.evaluation.documents import lm_eval_task

    tasks = {requests.name: lm_eval_task(requests) for requests in asked}
    return lm_evaluate(lm=lm, task_dict={"tasks": tasks}, bootstrap_iters=0, log_samples=True)


def _score(
    task: Task,
    asked: Sequence[Requests],
    results: dict[str, Any],
    *,
    evaluation: EvaluationConfig,
    progress: bool,
) -> TaskScore:
    logged = {requests.name: results["samples"][requests.name] for requests in asked}
    items: list[Logged] = [dict(zip(logged, entries, strict=True)) for entries in zip(*logged.values(), strict=True)]
    samples = [task.sample(item) for item in items]
    found: dict[str, float | None] = {}
    for requests in asked:
        scores = results["results"][requests.name]
        found.update({key.split(",")[0]: value for key, value in scores.items() if "," in key})
    if "pass@1" in task.metrics:
        found.update(_pass_rates(asked, samples, evaluation=evaluation, progress=progress))
    return TaskScore({name: found[name] for name in task.metrics}, len(samples), samples)


def _pass_rates(
    asked: Sequence[Requests], samples: list[dict[str, Any]], *, evaluation: EvaluationConfig, progress: bool
) -> dict[str, float | None]:
    """Judge the completions of every problem; their verdicts join the samples."""
    from hiplora.evaluation.passk import judge, pass_rates

    if "completions" not in samples[0]:
        return pass_rates([])
    verdicts = judge(
        asked[0].documents,
        [sample["completions"] for sample in samples],
        execution=evaluation.code_execution,
        timeout=evaluation.code_timeout_seconds,
        progress=progress,
    )
    for sample, judged in zip(samples, verdicts, strict=True):
        sample["verdicts"] = [verdict.status for verdict in judged]
    return pass_rates([(len(judged), sum(verdict.passed for verdict in judged)) for judged in verdicts])


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep lm-eval's notes on how it was called out of the log; its errors still show."""
    logger = logging.getLogger("lm_eval")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
