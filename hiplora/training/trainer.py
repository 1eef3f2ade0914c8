"""``train``: one adapter from encoded examples, resumed from the newest checkpoint if there is one."""

from __future__ import annotations

import hashlib
import json
import logging
import math
from array import array
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import TrainingArguments

from hiplora.packing.agreement import reads_rows
from hiplora.packing.attention import packed_attention
from hiplora.packing.decoder import causal_lm, check_head, positions
from hiplora.packing.sequences import Encoded
from hiplora.training import checkpoint, feeding
from hiplora.training.fused_lora import fused_lora
from hiplora.training.journal import Journal
from hiplora.training.lean_mlp import lean_mlp
from hiplora.training.loop import AdapterTrainer, BatchStream, NonFiniteLossError, Progress, Session, native_state

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedTokenizerBase

    from hiplora.methods.base import Method
    from hiplora.tracking import Tracker
    from hiplora.training.options import Training

logger = logging.getLogger(__name__)

__all__ = ["NonFiniteLossError", "TrainResult", "native_state", "train"]


@dataclass(frozen=True)
class TrainResult:
    """The figures and final state of a training; counts cover the whole training, including resumed parts.

    - tokens: prompt and answer tokens without padding; label_tokens: those with a loss.
    - examples: those that fit a row; ``cut`` of them lost the end of their answer for it, ``dropped`` more were left
      out.
    - final_loss: mean over the last tenth of the steps, in nats per label token.
    - seconds: time in steps; elapsed: the same after each step.
    - share_prefixes: whether common prefixes of prompts were computed once. A micro-batch then drew one dropout mask
      per shared prefix instead of one per example.
    - native: the state to continue from, before ``finish``: ``adapter``, the trained tensors by name, and ``method``,
      the method's own state.
    - snapshots: such states by the step after which they were taken.
    - optimizer: AdamW's state by parameter.
    """

    steps: int
    tokens: int
    label_tokens: int
    examples: int
    cut: int
    dropped: int
    epochs: float
    final_loss: float
    curve: list[dict[str, float]]
    seconds: float
    elapsed: list[float]
    tokens_per_second: float
    share_prefixes: bool
    resumed_from: int | None
    native: dict[str, Any] = field(repr=False, compare=False)  # == of tensors is not a bool
    snapshots: dict[int, dict[str, Any]] = field(repr=False, compare=False)
    optimizer: dict[Any, Any] = field(repr=False, compare=False)


def train(
    peft_model: PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    encoded: Sequence[Encoded],
    *,
    method: Method,
    training: Training,
    seed: int,
    checkpoint_dir: Path,
    tracker: Tracker | None = None,
    moments: Mapping[Any, Any] | None = None,
) -> TrainResult:
    """Train the attached adapter in place; afterwards the model is in evaluation mode.

    The same arguments and seed give the same adapter, bit for bit, on the same machine with the same number of threads
    and (on CUDA) deterministic kernels, however often the process was killed in between.

    Args:
        checkpoint_dir: where checkpoints are kept; the caller removes it when the adapter is stored.
        tracker: gets the curve for W&B.
        moments: the optimizer's state from an earlier training, to start with.

    Raises:
        NonFiniteLossError: the loss, a gradient, or a parameter at a checkpoint is not finite.
        UserError: no example fits a row, the model's head is not supported, ``checkpoint_dir`` belongs to another
            training, or the disk is full.
    """
    fitted = feeding.fitting(encoded, training, positions(peft_model))
    examples = fitted.examples
    check_head(peft_model)
    fingerprint = _fingerprint(peft_model, examples, method=method, training=training, seed=seed)
    found = checkpoint.newest(checkpoint_dir, fingerprint=fingerprint)
    if found is not None and not _kept(found, training):
        logger.warning("the checkpoint in %s lacks a requested snapshot: starting from the beginning", checkpoint_dir)
        found = None
    tensors, progress = (None, Progress(fingerprint)) if found is None else (found[0], _progress(found[1]))
    resumed_from = progress.step if found is not None else None
    feeding.announce(examples, training, seed=seed, resumed_from=resumed_from)

    shards = feeding.in_shards(examples, method.shards, training, seed=seed)
    apart = not reads_rows(peft_model)
    batches = partial(feeding.batches, shards, training, seed=seed, tokenizer=tokenizer, apart=apart)
    stream = BatchStream(lambda: batches(step=progress.step))
    with _training_mode(peft_model, training, apart=apart) as compact:
        trainer = AdapterTrainer(
            peft_model,
            _arguments(training, peft_model, shards=len(shards), seed=seed, folder=checkpoint_dir),
            batches=stream,
            method=method,
            optimizers=_optimizers(method.param_groups(peft_model, training=training), training),
            compact=compact,
        )
        if tensors is not None:
            _restore(trainer, tensors)
        elif moments is not None:
            groups = trainer.adamw.state_dict()["param_groups"]
            trainer.adamw.load_state_dict({"state": moments, "param_groups": groups})
        journal = Journal(
            checkpoint_dir,
            steps=training.steps,
            log_every=training.log_every,
            curve=progress.curve,
            tracker=tracker,
        )
        session = Session(
            trainer,
            progress=progress,
            tensors=tensors,
            journal=journal,
            folder=checkpoint_dir,
            checkpoint_every=training.checkpoint_every,
            snapshot_steps=training.snapshot_steps(),
        )
        trainer.add_callback(session)
        with journal:  # even if no step is left: the killed process may not have sent the last ones to W&B
            if progress.step < training.steps:
                trainer.train()
    native = native_state(peft_model, method)
    method.finish(peft_model)
    return TrainResult(
        **_figures(progress, examples, training),
        examples=len(examples),
        cut=fitted.truncated,
        dropped=fitted.dropped,
        share_prefixes=compact and training.share_prefixes,
        resumed_from=resumed_from,
        native=native,
        snapshots=session.snapshots,
        optimizer=trainer.adamw.state_dict()["state"],
    )


def _kept(found: tuple[dict[str, Any], dict[str, Any]], training: Training) -> bool:
    """Whether a checkpoint has every requested snapshot up to its own step."""
    tensors, progress = found
    passed = {step for step in training.snapshot_steps() if step <= progress["step"]}
    return passed <= set(tensors.get("snapshots", ()))


def _arguments(training: Training, model: PeftModel, *, shards: int, seed: int, folder: Path) -> TrainingArguments:
    """Trainer's arguments, with its logging, saving and progress bars off: Session and Journal replace them."""
    on_cpu = next(model.parameters()).device.type == "cpu"
    arguments = TrainingArguments(
        output_dir=str(folder),
        max_steps=training.steps,
        per_device_train_batch_size=training.micro_batch_rows,
        gradient_accumulation_steps=shards * math.ceil(training.rows_per_step // shards / training.micro_batch_rows),
        max_grad_norm=training.max_grad_norm or math.inf,
        learning_rate=training.lr,
        seed=seed,
        use_cpu=on_cpu,
        dataloader_pin_memory=not on_cpu,
        save_strategy="no",
        logging_strategy="no",
        logging_nan_inf_filter=False,
        report_to="none",
        disable_tqdm=True,
        remove_unused_columns=False,
    )
    if arguments.n_gpu > 1:
        arguments._n_gpu = 1  # one process, one device: no DataParallel
    return arguments


def _optimizers(
    groups: list[dict[str, Any]], training: Training
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LambdaLR]:
    """Fused AdamW, and a schedule: linear warm-up with a first step above 0, then constant."""
    optimizer = torch.optim.AdamW(
        groups, lr=training.lr, betas=(training.beta1, training.beta2), eps=training.eps, fused=True
    )
    warmup = max(1, math.ceil(training.warmup_ratio * training.steps))
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / warmup))
    return optimizer, scheduler


@contextmanager
def _training_mode(model: PeftModel, training: Training, *, apart: bool) -> Iterator[bool]:
    """A context with fused layers and, if configured, gradient checkpointing; it leaves the model in evaluation mode.

    With ``apart``, where every example has its own row, the model keeps its own attention. Yields whether micro-batches
    may be compact: attention works by blocks, and every adapted layer draws its dropout by ``sample_dropout``.
    """
    lm = causal_lm(model)
    settings = lm.config.get_text_config()
    use_cache = settings.use_cache
    if training.gradient_checkpointing:
        lm.activation_checkpointing_enable({"use_reentrant": False})
    try:
        attention = nullcontext(False) if apart else packed_attention(lm)  # rows of one example have no positions
        with fused_lora(model) as own_dropout, lean_mlp(lm), attention as by_blocks:
            yield own_dropout and by_blocks
    finally:
        if training.gradient_checkpointing:
            lm.activation_checkpointing_disable()
            lm.disable_input_require_grads()  # enabling added a hook, which disabling leaves on the shared backbone
        settings.use_cache = use_cache
        model.zero_grad(set_to_none=True)
        model.eval()


def _restore(trainer: AdapterTrainer, tensors: dict[str, Any]) -> None:
    """Restore everything but the random generators, which Session sets last so that nothing advances them."""
    trainer.method.put_back(trainer.adapted, tensors)
    trainer.adamw.load_state_dict(tensors["optimizer"])
    trainer.schedule.load_state_dict(tensors["scheduler"])


def _fingerprint(
    model: PeftModel, examples: Sequence[Encoded], *, method: Method, training: Training, seed: int
) -> str:
    """SHA-256 (hex) of settings, seed, examples, and the trained parameters' names, shapes and dtypes.

    The values of weights, of a parent adapter and of the optimizer's first moments do not enter; trainings that differ
    in these alone need different folders for their checkpoints.
    """
    shapes = [(name, [*p.shape], str(p.dtype)) for name, p in model.named_parameters() if p.requires_grad]
    content = hashlib.sha256(
        json.dumps([training.identity(), method.identity(), seed, shapes], sort_keys=True).encode()
    )
    for example in examples:
        content.update(array("q", [len(example.prompt), *example.prompt, *example.answer]).tobytes())
    return content.hexdigest()


def _progress(stored: dict[str, Any]) -> Progress:
    return Progress(**stored)


def _figures(progress: Progress, examples: Sequence[Encoded], training: Training) -> dict[str, Any]:
    last = [entry["loss"] for entry in progress.curve[-max(1, training.steps // 10) :]]
    return {
        "steps": progress.step,
        "tokens": progress.tokens,
        "label_tokens": progress.label_tokens,
        "epochs": progress.examples / len(examples),
        "final_loss": sum(last) / len(last),
        "curve": progress.curve,
        "seconds": progress.seconds,
        "elapsed": progress.elapsed,
        "tokens_per_second": progress.tokens / progress.seconds,
    }
