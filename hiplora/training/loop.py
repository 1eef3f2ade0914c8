"""The Trainer of one adapter: loss at label positions, method hooks, stop at non-finite values, exact resume."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.nn.utils import clip_grads_with_norm_, get_total_norm
from torch.utils.data import DataLoader, IterableDataset
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments, set_seed

from hiplora.errors import UserError
from hiplora.training import checkpoint
from hiplora.training.journal import Journal
from hiplora.training.loss import label_loss
from hiplora.tuner.product import drawn_for_all

if TYPE_CHECKING:
    from peft import PeftModel

    from hiplora.methods.base import Method


class NonFiniteLossError(UserError):
    """The loss, a gradient or a trained parameter is nan or infinite; earlier checkpoints stay."""


@dataclass
class Progress:
    """The progress of a training, stored in its checkpoints: counters, seconds, curve."""

    fingerprint: str
    step: int = 0
    tokens: int = 0
    label_tokens: int = 0
    examples: int = 0
    seconds: float = 0.0
    curve: list[dict[str, float]] = field(default_factory=list)
    elapsed: list[float] = field(default_factory=list)


class BatchStream(IterableDataset):
    """Collated micro-batches; ``make`` opens the stream at the training's current step."""

    def __init__(self, make: Callable[[], Iterator[dict[str, Any]]]) -> None:
        self._make = make

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return self._make()


class AdapterTrainer(Trainer):
    """Trains the adapter that ``method`` attached.

    The loss is the sum over label tokens, divided by the number of label tokens in the whole optimizer step. The
    method's extra loss is divided by the step's number of micro-batches. So neither depends on how a step is split.
    """

    loss_is_scaled_for_ga = True

    def __init__(
        self,
        model: PeftModel,
        args: TrainingArguments,
        *,
        batches: BatchStream,
        method: Method,
        optimizers: tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LambdaLR],
        compact: bool,
    ) -> None:
        super().__init__(model=model, args=args, train_dataset=batches, optimizers=optimizers)
        self.remove_callback(PrinterCallback)
        self.adapted, self.batches = model, batches
        self.adamw, self.schedule = optimizers
        self.method, self.compact = method, compact
        self.entry: dict[str, float] = {}  # of the last optimizer step
        self.counts: dict[str, int] = {}
        self._losses: list[torch.Tensor] = []
        self._extras: list[torch.Tensor] = []

    @property
    def device(self) -> torch.device:
        """The device that the model is on."""
        return next(self.adapted.parameters()).device

    def get_train_dataloader(self) -> DataLoader:
        """A loader of the stream, with its own generator so that it does not advance the global one."""
        return DataLoader(self.batches, batch_size=None, generator=torch.Generator())

    def get_batch_samples(
        self, epoch_iterator: Iterator, num_batches: int, device: torch.device
    ) -> tuple[list[dict[str, Any]], int]:
        """The micro-batches of one optimizer step, and their number of label tokens."""
        window = list(islice(epoch_iterator, num_batches))
        labels = sum(len(batch["label_ids"]) for batch in window)
        self.counts = {key: sum(batch[key] for batch in window) for key in ("tokens", "examples")}
        self.counts["label_tokens"] = labels
        self._losses, self._extras = [], []
        return window, labels

    def training_step(self, model: torch.nn.Module, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> torch.Tensor:
        """Forward and backward of a micro-batch; for a compact one, dropout masks are drawn for all positions.

        The backward pass draws them too, with gradient checkpointing.
        """
        if not self.compact:
            return super().training_step(model, inputs, *args, **kwargs)
        with drawn_for_all(inputs["places"], inputs["input_ids"].numel()):
            return super().training_step(model, inputs, *args, **kwargs)

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> torch.Tensor:
        """This micro-batch's share of the step's loss, a scalar."""
        assert num_items_in_batch is not None  # always counted by get_batch_samples
        self.method.before_micro_batch(self.adapted, inputs["shard"])
        loss = label_loss(model, inputs, compact=self.compact) / num_items_in_batch
        self._losses.append(loss.detach())
        extra = self.method.extra_loss(self.adapted)
        if extra is not None:
            extra = extra / self.current_gradient_accumulation_steps
            self._extras.append(extra.detach())
            loss = loss + extra
        return loss

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        """0: to count them, Trainer would go through all parameters per micro-batch."""
        return 0

    def _clip_grad_norm(self, model: torch.nn.Module) -> torch.Tensor:
        """Clip the gradients, after a check that they are finite: clipping by a nan norm would hide where it arose."""
        gradients = {p: p.grad for p in model.parameters() if p.grad is not None}
        norm = get_total_norm(gradients.values())
        self._record_step(norm)
        clip_grads_with_norm_(gradients, self.args.max_grad_norm, norm)
        return norm

    def _record_step(self, norm: torch.Tensor) -> None:
        """Fill ``entry`` with plain numbers, the step's only transfer from the device; stop if one is not finite."""
        numbers = torch.stack([*self._losses, *self._extras, norm.float()]).tolist()
        losses, extras = numbers[: len(self._losses)], numbers[len(self._losses) : -1]
        step = self.state.global_step + 1
        for micro_batch, loss in enumerate(losses, start=1):
            if not math.isfinite(loss):
                _stop(step, f"the loss of micro-batch {micro_batch} of {len(losses)} is {loss}")
        if not all(map(math.isfinite, extras)):
            _stop(step, f"the extra loss of method {self.method.name} is {sum(extras)}")
        if not math.isfinite(numbers[-1]):
            named = self.adapted.named_parameters()
            name = next((n for n, p in named if p.grad is not None and not p.grad.isfinite().all()), "all together")
            _stop(step, f"the gradient norm is {numbers[-1]} (gradient of {name})")
        self.entry = {
            "step": step,
            "loss": sum(losses),
            "penalty": sum(extras, 0.0),
            "grad_norm": numbers[-1],
            "lr": self.adamw.param_groups[0]["lr"],
        }


def _stop(step: int, what: str) -> None:
    raise NonFiniteLossError(
        f"training stopped at step {step}, which was not taken: {what}; checkpoints before it are kept, "
        "try a lower training.lr or look at the training data"
    )


class Session(TrainerCallback):
    """The callback around the optimizer steps of one process: start or resume, hooks, journal, checkpoints."""

    def __init__(
        self,
        trainer: AdapterTrainer,
        *,
        progress: Progress,
        tensors: dict[str, Any] | None,
        journal: Journal,
        folder: Path,
        checkpoint_every: int,
        snapshot_steps: Sequence[int],
    ) -> None:
        self.trainer, self.progress, self.tensors = trainer, progress, tensors
        self.journal, self.folder, self.checkpoint_every = journal, folder, checkpoint_every
        self.snapshot_steps = snapshot_steps
        self.snapshots: dict[int, dict[str, Any]] = {} if tensors is None else tensors.get("snapshots", {})
        self._mark = 0.0

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Set the step to resume from, and seed or restore the random generators, right before data is read."""
        state.global_step = self.progress.step
        if self.tensors is None:
            set_seed(args.seed)
        else:
            checkpoint.set_random_states(self.tensors["random"], self.trainer.device)
        self._mark = time.perf_counter()

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Call the method's hook right after the step."""
        self.trainer.method.after_step(self.trainer.adapted, state.global_step + 1)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Count and report the step, and save a checkpoint if it is due; the time of saving does not count."""
        progress = self.progress
        progress.step = state.global_step
        progress.seconds += time.perf_counter() - self._mark
        progress.elapsed.append(progress.seconds)
        for key, count in self.trainer.counts.items():
            setattr(progress, key, getattr(progress, key) + count)
        self.journal.add({**self.trainer.entry, "tokens": progress.tokens}, seconds=progress.seconds)
        if progress.step in self.snapshot_steps:
            self.snapshots[progress.step] = native_state(self.trainer.adapted, self.trainer.method)
        if progress.step % self.checkpoint_every == 0 or progress.step == state.max_steps:
            self._check_finite()
            checkpoint.save(self.folder, tensors=self._tensors(), progress=asdict(progress))
        self._mark = time.perf_counter()

    def _check_finite(self) -> None:
        """Refuse to save parameters that are not finite: after the last step, no loss would reveal them."""
        named = self.trainer.adapted.named_parameters()
        broken = next((name for name, p in named if p.requires_grad and not p.isfinite().all()), None)
        if broken is not None:
            raise NonFiniteLossError(
                f"training stopped after step {self.progress.step}, which left values that are not finite in {broken}; "
                "the adapter is not saved, checkpoints before it are kept, try a lower training.lr"
            )

    def _tensors(self) -> dict[str, Any]:
        model = self.trainer.adapted
        return {
            "adapter": {name: p.detach() for name, p in model.named_parameters() if p.requires_grad},
            "optimizer": self.trainer.adamw.state_dict(),
            "scheduler": self.trainer.schedule.state_dict(),
            "method": self.trainer.method.state(model),
            "random": checkpoint.random_states(self.trainer.device),
            "snapshots": self.snapshots,
        }


def native_state(model: PeftModel, method: Method) -> dict[str, Any]:
    """The state to continue a training from: trained tensors by name, copied to the CPU, and the method's state."""
    adapter = {name: p.detach().to("cpu", copy=True) for name, p in model.named_parameters() if p.requires_grad}
    return {"adapter": adapter, "method": copy.deepcopy(method.state(model))}
