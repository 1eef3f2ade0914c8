"""HiP-LoRA under a stock ``transformers.Trainer``: one callback adds what the method does around a step."""

from __future__ import annotations

from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from hiplora.errors import UserError


class HipLoraCallback(TrainerCallback):
    """Adds the stability budget's gradient and the retraction to each optimizer step.

    ::

        model = get_peft_model(backbone, HipLoraConfig(r=16, k=32))
        Trainer(model, args, train_dataset=rows, callbacks=[HipLoraCallback()]).train()

    The budget ``R = λ Σ w_i φ_i²`` is a function of φ alone. Instead of adding R to a loss that the stock
    Trainer computes, ``∂R/∂φ`` is put into ``φ.grad`` before the first micro-batch of every optimizer step, and
    the micro-batches accumulate on top. The gradient that is clipped and applied is that of ``loss + R``,
    counted once per optimizer step whatever the accumulation; only the logged loss lacks R. Right after the
    step the residual factors are projected back.

    Not for fp16 with a loss scaler, DeepSpeed or FSDP, which scale gradients or keep them elsewhere: these are
    refused. bf16 and several processes with DDP are fine.
    """

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Refuse a model without HiP-LoRA and set-ups that do not keep gradients in ``.grad``. Raises UserError."""
        _tuner(kwargs["model"])
        if args.fp16 or args.deepspeed or args.fsdp:
            raise UserError(
                "HipLoraCallback works with bf16 or fp32 on one device or DDP: leave out fp16, deepspeed, fsdp"
            )

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Start the step's gradients of φ with those of the budget."""
        tuner = _tuner(kwargs["model"])
        parameters = tuner.principal_parameters()
        penalty = tuner.stability_penalty()
        if not penalty.requires_grad:  # λ = 0, or no principal channel
            return
        for parameter, gradient in zip(parameters, torch.autograd.grad(penalty, parameters), strict=True):
            parameter.grad = gradient if parameter.grad is None else parameter.grad + gradient

    def on_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Project the residual factors back out of the principal subspaces."""
        _tuner(kwargs["model"]).retract()


def _tuner(model: Any) -> Any:
    tuner = getattr(getattr(model, "module", model), "base_model", None)
    if not hasattr(tuner, "retract"):
        raise UserError("HipLoraCallback needs a PEFT model with a HipLoraConfig: call get_peft_model first")
    return tuner
