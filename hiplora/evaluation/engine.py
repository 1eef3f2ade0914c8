"""Scores of one model on the benchmarks: lm-eval runs the evaluation; our tasks make the requests and score answers.

All tasks go through one call of lm-eval's ``evaluate``, so that their requests are batched together. (Its
``simple_evaluate`` would also reseed the global random states and collect the environment.)
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from hiplora.tasks.base import Programs, Requests, Task
from hiplora.tasks.form import shown_answer, shown_prompt
from hiplora.tokens import in_turns

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedTokenizerBase

    from hiplora.evaluation.options import Evaluation
    from hiplora.parts import Parts
    from hiplora.tasks.source import Source

Logged = dict[str, dict[str, Any]]


@dataclass
class TaskScore:
    """One benchmark's result.

    Args:
        metrics: fractions and nats per token; None for a metric that was not measured.
        n: number of items.
        samples: for each item, its id and the model's outputs.
    """

    metrics: dict[str, float | None]
    n: int
    samples: list[dict[str, Any]] = field(default_factory=list)


def evaluate(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    *,
    tasks: Sequence[Task],
    source: Source,
    evaluation: Evaluation,
    progress: bool = True,
    parts: Parts | None = None,
    prompted: Callable[[int, str], str] = lambda number, prompt: prompt,
) -> dict[str, TaskScore]:
    """Benchmark → score of a causal language model, plain or PEFT; its training flags are restored afterwards.

    No global random state is used. ``parts`` holds earlier answers of this model, and keeps new ones. ``prompted``
    replaces every prompt, given the item's number in its benchmark and the prompt.
    """
    from hiplora.evaluation.lm import InMemoryLM
    from hiplora.packing.decoder import evaluating

    only = evaluation.likelihood_only
    tasks = [task.spoken_by(tokenizer) for task in tasks]
    asked = {
        task.name: [
            _prompted(each, prompted) for each in (task.likelihood if only else task.requests)(source, evaluation)
        ]
        for task in tasks
    }
    with evaluating(model), quiet():
        lm = InMemoryLM(
            model,
            tokenizer,
            batch_tokens=evaluation.batch_tokens,
            seed=evaluation.seed,
            progress=progress,
            parts=parts,
        )
        wrapped = [
            task for task in tasks if in_turns(tokenizer) and not task.already_in_turns(source, evaluation.splits)
        ]
        shown = {task.name: [_shown(each, tokenizer) for each in asked[task.name]] for task in wrapped}
        results = _run(lm, [requests for group in (asked | shown).values() for requests in group])
    return {task.name: _score(task, asked[task.name], results, only=only, progress=progress) for task in tasks}


def _prompted(asked: Requests, prompted: Callable[[int, str], str]) -> Requests:
    """The same requests with their prompts replaced."""
    documents = [{**each, "prompt": prompted(number, each["prompt"])} for number, each in enumerate(asked.documents)]
    return replace(asked, documents=documents)


def _shown(asked: Requests, tokenizer: PreTrainedTokenizerBase) -> Requests:
    """The requests as turns of the tokenizer's chat; programs are still run with the original prompts."""
    documents = []
    for each in asked.documents:
        answers: dict[str, Any] = {}
        if "answer" in each:
            answers["answer"] = shown_answer(tokenizer, each["answer"])
        if "options" in each:
            answers["options"] = [shown_answer(tokenizer, option) for option in each["options"]]
        documents.append({**each, **answers, "prompt": shown_prompt(tokenizer, each["prompt"])})
    return replace(asked, documents=documents)


def _run(lm: Any, asked: Sequence[Requests]) -> dict[str, Any]:
    from lm_eval.evaluator import evaluate as lm_evaluate

    from hiplora.evaluation.documents import lm_eval_task

    tasks = {requests.name: lm_eval_task(requests) for requests in asked}
    return lm_evaluate(lm=lm, task_dict={"tasks": tasks}, bootstrap_iters=0, log_samples=True)


def _score(task: Task, asked: Sequence[Requests], results: dict[str, Any], *, only: bool, progress: bool) -> TaskScore:
    """The score of one benchmark; with ``only`` likelihoods, its other metrics are None."""
    logged = {requests.name: results["samples"][requests.name] for requests in asked}
    items: list[Logged] = [dict(zip(logged, entries, strict=True)) for entries in zip(*logged.values(), strict=True)]
    sample = _likelihood if only else task.sample
    samples = [{**sample(item), **_hashes(next(iter(item.values())))} for item in items]
    found: dict[str, float | None] = {}
    for requests in asked:
        scores = results["results"][requests.name]
        found.update({key.split(",")[0]: value for key, value in scores.items() if "," in key})
    if task.programs is not None and not only:
        found.update(_pass_rates(asked, samples, programs=task.programs, progress=progress))
    metrics = {name: found.get(name) if only or name not in task.measured else found[name] for name in task.metrics}
    return TaskScore(metrics, len(samples), samples)


def _likelihood(item: Logged) -> dict[str, Any]:
    """The sample of an item of which only the gold answer was scored."""
    (entry,) = item.values()
    return {"id": entry["doc"]["id"], "nll": entry["nll"]}


def _hashes(entry: dict[str, Any]) -> dict[str, str]:
    """lm-eval's hashes of the item and of its prompt, 16 hex digits each, to verify later what was asked."""
    return {"doc_hash": entry["doc_hash"][:16], "prompt_hash": entry["prompt_hash"][:16]}


def _pass_rates(
    asked: Sequence[Requests], samples: list[dict[str, Any]], *, programs: Programs, progress: bool
) -> dict[str, float | None]:
    """Pass rates and the share of empty completions, from running every completion; adds verdicts to ``samples``."""
    from hiplora.evaluation.passk import judge, pass_rates

    if "completions" not in samples[0]:
        return {**pass_rates([]), "empty": None}
    verdicts = judge(
        asked[0].documents,
        [sample["completions"] for sample in samples],
        execution=programs.backend,
        timeout=programs.timeout,
        progress=progress,
    )
    for sample, judged in zip(samples, verdicts, strict=True):
        sample["verdicts"] = [verdict.status for verdict in judged]
    blank = [not text.strip() for sample in samples for text in sample["completions"]]
    rates = pass_rates([(len(judged), sum(verdict.passed for verdict in judged)) for judged in verdicts])
    return {**rates, "empty": sum(blank) / len(blank)}


@contextmanager
def quiet() -> Iterator[None]:
    """Keep lm-eval's notes about its call out of the log; its errors still show."""
    logger = logging.getLogger("lm_eval")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
