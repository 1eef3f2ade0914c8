"""Measure training speed: HiP-LoRA and Proj-LoRA against LoRA, and our LoRA step against transformers' stock Trainer.

    python scripts/bench_training.py --json training.json
    python scripts/bench_training.py --device cuda --json training.json
    python scripts/bench_training.py training.rows_per_step=4 model=folder model.path=DIR

The variants train on the packaged model, with a mini-benchmark's training examples (``--task``) in the mini scale's
rows, and on one transformer block at Llama-3.1-8B's shapes with random weights. Arithmetic is bf16, or fp32 on a CPU
without bf16 arithmetic. Each repetition trains every variant for a few optimizer steps, in rotating order; everything
except writing checkpoints is timed: forward, backward, clipping, AdamW, penalty, retraction. The first repetition is
discarded. The script reports tokens per second (medians over the repetitions) and ratios of these medians:

- ``hip_over_lora``, ``proj_over_lora``: in our trainer, on the packaged model; LoRA is PEFT's own;
- ``hip_over_lora_8b_block``: the same on the block, whose input needs a gradient, as inside a model;
- ``ours_over_stock``: our trainer over ``transformers.Trainer`` in its default settings, both with PEFT's LoRA and
  AdamW. The stock trainer gets the same examples, the same number per step, padded to the longest, with prompts masked
  in the labels.

Prompt and answer tokens count for all variants; padding does not.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from itertools import chain
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
import transformers
from transformers import (
    DataCollatorForSeq2Seq,
    LlamaConfig,
    LlamaForCausalLM,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

from hiplora import models
from hiplora.compose import compose
from hiplora.methods.base import Setup
from hiplora.packing.sequences import Encoded
from hiplora.pipelines.base import Config
from hiplora.stages.targets import resolved
from hiplora.tasks.source import Source
from hiplora.training.options import Training
from hiplora.training.stream import epoch_rows
from hiplora.training.trainer import train

Run = Callable[[], float]  # trains for some steps and returns tokens per second
SEED = 0
DROPOUT = "method.dropout=0.05"  # of every method, because its masks take time
LLAMA_8B_BLOCK = LlamaConfig(
    vocab_size=512,  # small, since the head is not part of a block
    hidden_size=4096,
    intermediate_size=14336,
    num_hidden_layers=1,
    num_attention_heads=32,
    num_key_value_heads=8,
    max_position_embeddings=2048,
    bos_token_id=0,
    eos_token_id=1,
)


def interleaved(variants: dict[str, Run], *, repetitions: int) -> dict[str, float]:
    """The median tokens per second of each variant, without the first repetition."""
    measured: dict[str, list[float]] = {name: [] for name in variants}
    for repetition in range(repetitions + 1):
        order = list(variants)[repetition % len(variants) :] + list(variants)[: repetition % len(variants)]
        for name in order:
            measured[name].append(variants[name]())
        print("  ".join(f"{name} {values[-1]:.0f} tok/s" for name, values in measured.items()), flush=True)
    return {name: statistics.median(values[1:]) for name, values in measured.items()}


def attached(config: Config, backbone: Any) -> Any:
    """A fresh adapter of the configuration's method on a copy of the backbone."""
    targets = resolved(backbone, config.model.target_modules)
    setup = Setup(targets=targets, svd=config.svd, training=config.training)
    return config.method.attach(copy.deepcopy(backbone), setup=setup)


def ours(config: Config, backbone: Any, tokenizer: Any, examples: list[Encoded], training: Training) -> Run:
    """Our trainer with the method of the configuration on a copy of the backbone."""
    transformers.set_seed(SEED)
    model = attached(config, backbone)

    def run() -> float:
        with tempfile.TemporaryDirectory() as folder:
            result = train(
                model,
                tokenizer,
                examples,
                method=config.method,
                training=training,
                seed=SEED,
                checkpoint_dir=Path(folder),
            )
        return result.tokens_per_second

    return run


class Clock(TrainerCallback):
    """Measures the seconds from the beginning of a training to its last step."""

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self.begun = time.perf_counter()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.seconds = time.perf_counter() - self.begun


def stock(config: Config, backbone: Any, tokenizer: Any, examples: list[Encoded], training: Training) -> Run:
    """Transformers' Trainer with PEFT's LoRA, on the examples that our trainer packs into its first steps."""
    transformers.set_seed(SEED)
    model = attached(config, backbone)
    rows = epoch_rows(examples, row_tokens=training.row_tokens, seed=SEED, epoch=0)
    packed = list(chain.from_iterable(row.examples for row in rows[: training.steps * training.rows_per_step]))
    per_step = len(packed) // training.steps
    packed = packed[: per_step * training.steps]
    dataset = [
        {
            "input_ids": e.prompt + e.answer,
            "labels": [-100] * len(e.prompt) + e.answer,
            "attention_mask": [1] * e.tokens,
        }
        for e in packed
    ]

    def run() -> float:
        with tempfile.TemporaryDirectory() as folder:
            arguments = TrainingArguments(
                output_dir=folder,
                max_steps=training.steps,
                per_device_train_batch_size=per_step,
                learning_rate=training.lr,
                weight_decay=training.weight_decay,
                use_cpu=next(model.parameters()).device.type == "cpu",
                save_strategy="no",
                report_to="none",
                disable_tqdm=True,
            )
            clock = Clock()
            trainer = Trainer(
                model,
                arguments,
                train_dataset=dataset,
                data_collator=DataCollatorForSeq2Seq(tokenizer),
                callbacks=[clock],
            )
            trainer.remove_callback(transformers.PrinterCallback)
            trainer.train()
        return sum(example.tokens for example in packed) / clock.seconds

    return run


def packaged_model(args: argparse.Namespace) -> dict[str, float]:
    """The results for the packaged model on a mini-benchmark."""
    overrides = [f"task={args.task}", f"model.device={args.device}", DROPOUT, *args.setting]
    configs = {name: compose([*overrides, f"method={name}"]) for name in ("lora", "hip", "proj")}
    config = configs["lora"]
    backbone = models.load(config.model)
    examples = config.task.as_trained().encoded_examples(Source(config.data), backbone.tokenizer)
    training = config.training.but(steps=args.steps, log_every=args.steps, checkpoint_every=args.steps)
    same = (backbone.model, backbone.tokenizer, examples, training)
    variants = {name: ours(each, *same) for name, each in configs.items()}
    variants["stock"] = stock(config, *same)
    speed = interleaved(variants, repetitions=args.repetitions)
    return {
        "hip_over_lora": speed["hip"] / speed["lora"],
        "proj_over_lora": speed["proj"] / speed["lora"],
        "ours_over_stock": speed["lora"] / speed["stock"],
        **{f"{name}_tokens_per_second": value for name, value in speed.items()},
    }


def block(args: argparse.Namespace) -> dict[str, float]:
    """The results for one transformer block at Llama-3.1-8B's shapes, with a basis by the quick randomised recipe."""
    overrides = ["svd.recipe=randomized", f"model.device={args.device}", DROPOUT, *args.setting]
    configs = {name: compose([*overrides, f"method={name}"]) for name in ("lora", "hip")}
    torch.manual_seed(SEED)
    arithmetic = models.arithmetic(configs["lora"].model)
    backbone = LlamaForCausalLM._from_config(LLAMA_8B_BLOCK, dtype=getattr(torch, arithmetic))
    backbone.to(models.device_of(configs["lora"].model)).enable_input_require_grads()
    training = configs["lora"].training.but(
        steps=args.steps,
        log_every=args.steps,
        checkpoint_every=args.steps,
        row_tokens=args.block_tokens,
        rows_per_step=1,
        micro_batch_rows=1,
    )
    rng = random.Random(SEED)
    examples = [
        Encoded([rng.randrange(2, 512) for _ in range(rng.randint(30, 60))], [rng.randrange(2, 512), 1])
        for _ in range(200)
    ]
    same = (backbone, SimpleNamespace(pad_token_id=0), examples, training)
    variants = {name: ours(config, *same) for name, config in configs.items()}
    speed = interleaved(variants, repetitions=args.block_repetitions)
    return {
        "hip_over_lora_8b_block": speed["hip"] / speed["lora"],
        **{f"{name}_8b_block_tokens_per_second": value for name, value in speed.items()},
    }


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("setting", nargs="*", help="settings of the runs, e.g. training.rows_per_step=4")
    parser.add_argument("--json", type=Path, help="file for the results, one flat JSON object")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--task", default="gsm8k", help="mini-benchmark to train on (default %(default)s)")
    parser.add_argument("--steps", type=int, default=2, help="optimizer steps per repetition")
    parser.add_argument("--repetitions", type=int, default=7, help="repetitions on the packaged model")
    parser.add_argument("--block-repetitions", type=int, default=7, help="repetitions on the 8B block")
    parser.add_argument("--block-tokens", type=int, default=512, help="tokens per step on the 8B block")
    args = parser.parse_args(words)
    transformers.utils.logging.disable_progress_bar()

    results: dict[str, Any] = packaged_model(args)
    models.forget()
    with tempfile.TemporaryDirectory() as cache:  # the basis of random weights is not needed later
        os.environ["HIPLORA_CACHE"] = cache
        results |= block(args)
    results |= {
        "threads": torch.get_num_threads(),
        "arithmetic": models.arithmetic(compose([f"model.device={args.device}", *args.setting]).model),
        "device": args.device,
        "task": args.task,
        "steps": args.steps,
    }
    for key, value in results.items():
        print(f"{key:32} {value:.3f}" if isinstance(value, float) else f"{key:32} {value}")
    if args.json:
        args.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
