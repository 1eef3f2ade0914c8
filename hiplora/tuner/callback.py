"""HiP-LoRA with a stock ``transformers.Trainer``: one callback adds what the method does around a step."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedType
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from hiplora.errors import UserError
from hiplora.tuner.model import HipLoraModel, adapted_layers

_DISTRIBUTED = (DistributedType.NO, DistributedType.MULTI_GPU, DistributedType.MULTI_CPU)


class HipLoraCallback(TrainerCallback):
    """Adds the stability budget's gradient and the retraction to each optimizer step.

    ::

        options = {"parameterization": "relative", "stability": 1e-3, "lr_scale": 10}
        model = get_peft_model(backbone, HipLoraConfig(r=16, k=32, **options))
        optimizer = torch.optim.AdamW(model.base_model.param_groups(lr=1e-3, weight_decay=0.01))
        callbacks = [HipLoraCallback()]
        Trainer(model, args, train_dataset=rows, optimizers=(optimizer, None), callbacks=callbacks).train()

    The budget ``R = λ Σ w_i φ_i²`` depends on φ alone. The callback cannot add R to the loss, which the stock
    Trainer computes. It puts ``∂R/∂φ`` into ``φ.grad`` before the first micro-batch of every optimizer step, and
    the micro-batches accumulate on top. So the Trainer clips and applies the gradient of ``loss + R``, with R
    counted once per optimizer step whatever the accumulation; the logged loss lacks R. Right after the step, the
    callback projects the residual factors.

    It refuses fp16 (whose loss scaler scales gradients), DeepSpeed and FSDP (which keep gradients elsewhere) and
    several GPUs in one process, set by the arguments or by ``accelerate launch``. bf16 works, and so do several
    processes with DDP. It also refuses an optimizer that does not train φ at ``lr_scale`` times the learning rate of A.
    The Trainer's own optimizer does so only with ``lr_scale=1``.
    """

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Refuse a launch, a model or an optimizer that the callback cannot serve. Raises UserError."""
        _check_launch(args)
        _check_rates(_tuner(kwargs["model"]), kwargs["optimizer"].param_groups)

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Put the gradient of the budget into ``φ.grad``, on which the micro-batches accumulate."""
        tuner = _tuner(kwargs["model"])
        parameters = [parameter for parameter in tuner.principal_parameters() if parameter.requires_grad]
        penalty = tuner.stability_penalty()
        if not penalty.requires_grad:  # λ = 0, or no trained principal channel
            return
        gradients = torch.autograd.grad(penalty, parameters, allow_unused=True)  # of another adapter with λ = 0: None
        for parameter, gradient in zip(parameters, gradients, strict=True):
            if gradient is not None:
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


def _check_launch(args: TrainingArguments) -> None:
    """Refuse what the callback cannot serve. Raises UserError."""
    state = AcceleratorState()  # the arguments do not name what ``accelerate launch`` sets
    found = {
        f"the mixed precision {state.mixed_precision}": state.mixed_precision not in ("no", "bf16"),
        f"the distributed type {state.distributed_type.value}": state.distributed_type not in _DISTRIBUTED,
        f"{args.n_gpu} GPUs in one process": args.n_gpu > 1,
    }
    for what, refused in found.items():
        if refused:
            raise UserError(
                "HipLoraCallback works with bf16 or fp32 on one device, or on several with one process each (DDP), "
                f"but this training has {what}; change the TrainingArguments or the options of accelerate launch."
            )


def _check_rates(tuner: HipLoraModel, groups: Sequence[Mapping[str, Any]]) -> None:
    """Refuse an optimizer whose learning rate of a φ is not ``lr_scale`` times that of its A. Raises UserError."""
    # A scheduler that warms up has lowered lr already, perhaps to 0; it keeps the full rate beside it.
    rates = {id(p): group.get("initial_lr", group["lr"]) for group in groups for p in group["params"]}
    for adapter in tuner.active_adapters:
        for name, layer in adapted_layers(tuner.model, adapter).items():
            if adapter not in layer.lora_phi:
                continue
            A, phi, scale = layer.factors(adapter)[0], layer.lora_phi[adapter], layer.hip_config[adapter].lr_scale
            if not (A.requires_grad and phi.requires_grad):
                continue
            base, given = rates.get(id(A), 0.0), rates.get(id(phi), 0.0)  # a parameter in no group does not move
            if base is None or given is None:
                raise UserError(
                    "the optimizer sets its own learning rates, so φ cannot have lr_scale times that of A; choose one "
                    "with a learning rate, such as AdamW (for Adafactor: relative_step=False and lr=...)."
                )
            if not math.isclose(given, scale * base, rel_tol=1e-6):
                raise UserError(
                    f"the learning rate of φ at {name} is {given:g}, but lr_scale={scale:g} times that of A is "
                    f"{scale * base:g}; give the Trainer optimizers=(optimizer, None), where the optimizer has the "
                    "groups model.base_model.param_groups(lr=...)."
                )
