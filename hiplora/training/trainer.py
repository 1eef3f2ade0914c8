"""``train``: one adapter from encoded examples, resumed from the newest checkpoint where there is one."""

from __future__ import annotations

import hashlib
import json
import logging
import math
from array import array
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import TrainingArguments

from hiplora.errors import UserError
from hiplora.packing.agreement import reads_rows
from hiplora.packing.attention import packed_attention
from hiplora.packing.batches import micro_batch
from hiplora.packing.decoder import causal_lm, check_head, positions
from hiplora.packing.sequences import Encoded
from hiplora.training import checkpoint
from hiplora.training.fused_lora import fused_lora
from hiplora.training.journal import Journal
from hiplora.training.lean_mlp import lean_mlp
from hiplora.training.loop import AdapterTrainer, BatchStream, NonFiniteLossError, Progress, Session, native_state
from hiplora.training.stream import epoch_rows, fit, micro_batches, row_stream

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
    """What a training was; counts are of the whole training, also where it was resumed.

    ``tokens`` are prompt and answer tokens without padding, ``label_tokens`` those with loss; ``final_loss``
    is the mean over the last tenth of the steps in nats per label token; ``seconds`` is the time in steps, ``elapsed``
    what it was after each of them.
    ``share_prefixes`` says whether prompts' common prefixes were computed once, in which case a micro-batch drew
    one dropout mask for each instead of one per example. ``native`` is the state to go on from, as a checkpoint has it:
    ``adapter``, the trained tensors by name, and ``method``, the method's own state; both from before ``finish``.
    ``snapshots`` are such states by the step that they were taken after.
    ``optimizer`` is AdamW's state by parameter.
    """

    steps: int
    tokens: int
    label_tokens: int
    epochs: float
    final_loss: float
    curve: list[dict[str, float]]
    seconds: float
    elapsed: list[float]
    tokens_per_second: float
    share_prefixes: bool
    resumed_from: int | None
    native: dict[str, Any] = field(repr=False, compare=False)  # tensors do not compare as a whole
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

    The same arguments and seed give the same adapter, bit for bit on the same machine, number of threads and
    (on cuda) deterministic kernels, however often the process was killed on the way: state lives in
    ``checkpoint_dir``, which the caller removes when the adapter is stored. ``tracker`` is the W&B run
    that gets the curve, or None. ``moments`` is the optimizer's state that an earlier training has left, to start with.

    Raises:
        NonFiniteLossError: the loss, a gradient or the adapter of a checkpoint is not finite.
        UserError: no example fits a row, the folder belongs to another training, the disk is full.
    """
    examples = _fitting(encoded, training, positions(peft_model))
    check_head(peft_model)
    fingerprint = _fingerprint(peft_model, examples, method=method, training=training, seed=seed)
    found = checkpoint.newest(checkpoint_dir, fingerprint=fingerprint)
    if found is not None and not _kept(found, training):
        logger.warning("the checkpoint in %s lacks a snapshot that is asked for now: starting afresh", checkpoint_dir)
        found = None
    tensors, progress = (None, Progress(fingerprint)) if found is None else (found[0], _progress(found[1]))
    resumed_from = progress.step if found is not None else None
    _announce(examples, training, seed=seed, resumed_from=resumed_from)

    shards = _dealt(examples, method.shards, training, seed=seed)
    pad_id = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else 0
    apart = not reads_rows(peft_model)
    stream = BatchStream(lambda: _batches(shards, training, seed=seed, step=progress.step, pad_id=pad_id, apart=apart))
    with _training_mode(peft_model, training) as compact:
        trainer = AdapterTrainer(
            peft_model,
            _arguments(training, peft_model, shards=len(shards), seed=seed, folder=checkpoint_dir),
            batches=stream,
            method=method,
            optimizers=_optimizers(method.param_groups(peft_model, training=training), training),
            compact=compact and not apart,
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
        with journal:  # also where no step is left: a killed process may have kept the last ones from W&B
            if progress.step < training.steps:
                trainer.train()
    native = native_state(peft_model, method)
    method.finish(peft_model)
    return TrainResult(
        **_figures(progress, examples, training),
        share_prefixes=compact and not apart and training.share_prefixes,
        resumed_from=resumed_from,
        native=native,
        snapshots=session.snapshots,
        optimizer=trainer.adamw.state_dict()["state"],
    )


def _kept(found: tuple[dict[str, Any], dict[str, Any]], training: Training) -> bool:
    """Whether a checkpoint has every snapshot that it is too late to take."""
    tensors, progress = found
    passed = {step for step in training.snapshot_steps() if step <= progress["step"]}
    return passed <= set(tensors.get("snapshots", ()))


def _fitting(encoded: Sequence[Encoded], training: Training, most: int | None) -> list[Encoded]:
    """The examples within a row and the ``most`` tokens that the model can read."""
    fewer = most is not None and most < training.row_tokens
    longest, name = (most, "the model's positions") if fewer else (training.row_tokens, "training.row_tokens")
    fitted = fit(encoded, row_tokens=longest)
    if fitted.truncated or fitted.dropped:
        logger.warning(
            "of %d examples, %d were cut and %d left out: longer than %s=%d",
            *(len(encoded), fitted.truncated, fitted.dropped, name, longest),
        )
    if not fitted.examples:
        raise UserError(
            f"none of the {len(encoded)} training examples fits training.row_tokens={training.row_tokens}: "
            "give longer rows"
        )
    return fitted.examples


def _announce(examples: Sequence[Encoded], training: Training, *, seed: int, resumed_from: int | None) -> None:
    rows = epoch_rows(examples, row_tokens=training.row_tokens, seed=seed, epoch=0)
    total = training.steps * training.rows_per_step
    logger.info(
        "%d steps of %d rows are %.2f epochs over %d examples (%d rows of %d positions, %.0f %% filled)",
        *(training.steps, training.rows_per_step, total / len(rows), len(examples), len(rows)),
        *(training.row_tokens, 100 * sum(row.inputs for row in rows) / (len(rows) * training.row_tokens)),
    )
    if resumed_from is not None:
        logger.info("resumed from the checkpoint of step %d", resumed_from)


def _dealt(examples: Sequence[Encoded], shards: int, training: Training, *, seed: int) -> list[Sequence[Encoded]]:
    """The examples in disjoint parts whose sizes differ by one at most; as they are where one part is asked for."""
    if shards == 1:
        return [examples]
    if training.rows_per_step % shards:
        raise UserError(
            f"training.rows_per_step={training.rows_per_step} cannot be dealt evenly to the {shards} shards that the "
            f"method asks for (method.clients): give a multiple of {shards}"
        )
    if len(examples) < shards:
        raise UserError(f"{len(examples)} examples are too few for {shards} shards: lower method.clients")
    order = torch.randperm(len(examples), generator=torch.Generator().manual_seed(seed)).tolist()
    return [[examples[index] for index in order[shard::shards]] for shard in range(shards)]


def _batches(
    shards: Sequence[Sequence[Encoded]],
    training: Training,
    *,
    seed: int,
    step: int,
    pad_id: int,
    apart: bool,
) -> Iterator[dict[str, Any]]:
    """The collated micro-batches from optimizer step ``step`` on, of which rows are a function of the seed.

    Within a step the shards come one after the other, with equally many rows each. ``apart``: every example stands in
    a row of its own.
    """
    share = training.rows_per_step // len(shards)
    streams = [
        micro_batches(
            islice(row_stream(examples, row_tokens=training.row_tokens, seed=seed), step * share, None),
            rows_per_step=share,
            micro_batch_rows=training.micro_batch_rows,
        )
        for examples in shards
    ]
    while True:
        for shard, stream in enumerate(streams):
            for lines in islice(stream, math.ceil(share / training.micro_batch_rows)):
                batch = micro_batch(lines, pad_id=pad_id, share_prefixes=training.share_prefixes, apart=apart)
                yield {**batch, "shard": shard}


def _arguments(training: Training, model: PeftModel, *, shards: int, seed: int, folder: Path) -> TrainingArguments:
    """Trainer's arguments: its own logging, saving and bars are off, ours replace them."""
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
    """AdamW in one fused call, and a linear warm-up whose first step already moves, then constant."""
    optimizer = torch.optim.AdamW(
        groups, lr=training.lr, betas=(training.beta1, training.beta2), eps=training.eps, fused=True
    )
    warmup = max(1, math.ceil(training.warmup_ratio * training.steps))
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / warmup))
    return optimizer, scheduler


@contextmanager
def _training_mode(model: PeftModel, training: Training) -> Iterator[bool]:
    """The quick paths, recomputation where asked; afterwards the model is as evaluation wants it, cache switch too.

    Yields whether micro-batches may be compact: attention is by blocks, and every dropout can be drawn for all of them.
    """
    lm = causal_lm(model)
    use_cache = lm.config.use_cache
    if training.gradient_checkpointing:
        lm.activation_checkpointing_enable({"use_reentrant": False})
    try:
        with fused_lora(model) as own_dropout, lean_mlp(lm), packed_attention(lm) as by_blocks:
            yield own_dropout and by_blocks
    finally:
        if training.gradient_checkpointing:
            lm.activation_checkpointing_disable()
        lm.config.use_cache = use_cache
        model.zero_grad(set_to_none=True)
        model.eval()


def _restore(trainer: AdapterTrainer, tensors: dict[str, Any]) -> None:
    """Everything but the random generators, which Session sets when nothing else can draw from them."""
    trainer.method.put_back(trainer.adapted, tensors)
    trainer.adamw.load_state_dict(tensors["optimizer"])
    trainer.schedule.load_state_dict(tensors["scheduler"])


def _fingerprint(
    model: PeftModel, examples: Sequence[Encoded], *, method: Method, training: Training, seed: int
) -> str:
    """SHA-256 of what decides the trained adapter, so that a checkpoint is never resumed into another run."""
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
