"""HiP-LoRA with a stock ``transformers.Trainer``: one callback adds what the method does around a step."""

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

    The budget ``R = λ Σ w_i φ_i²`` depends on φ alone. The callback cannot add R to the loss, which the stock
    Trainer computes. It puts ``∂R/∂φ`` into ``φ.grad`` before the first micro-batch of every optimizer step, and
    the micro-batches accumulate on top. So the Trainer clips and applies the gradient of ``loss + R``, with R
    counted once per optimizer step whatever the accumulation; the logged loss lacks R. Right after the step, the
    callback projects the residual factors.

    It refuses fp16 (whose loss scaler scales gradients), DeepSpeed and FSDP (which keep gradients elsewhere).
    bf16 and several processes with DDP work.
    """

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Refuse a model without HiP-LoRA, and fp16, DeepSpeed and FSDP. Raises UserError."""
        _tuner(kwargs["model"])
        if args.fp16 or args.deepspeed or args.fsdp:
            raise UserError(
                "HipLoraCallback works with bf16 or fp32 on one device or DDP: leave out fp16, deepspeed, fsdp"
            )

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Put the gradient of the budget into ``φ.grad``, on which the micro-batches accumulate."""
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
        """Project the residual factors out of the principal subspaces."""
        _tuner(kwargs["model"]).retract()


def _tuner(model: Any) -> Any:
    tuner = getattr(getattr(model, "module", model), "base_model", None)
    if not hasattr(tuner, "retract"):
        raise UserError("HipLoraCallback needs a PEFT model with a HipLoraConfig: call get_peft_model first")
    return tuner
