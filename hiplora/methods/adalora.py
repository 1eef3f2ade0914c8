"""AdaLoRA (Zhang et al. 2023) as in PEFT: ``ΔW = s P diag(Λ) Q``, ranks pruned to a budget during training.

Two things are left to the training loop: PEFT's allocation call after each optimizer step, and the term that keeps P
and Q orthogonal. PEFT adds that term to the model's own loss, which training here does not use.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from hiplora.methods.base import MOST_RANK, Method, active_adapter, check_rank, check_residual_options, require
from hiplora.methods.lora import factor_parameters, lora_updates, save_as_lora

if TYPE_CHECKING:
    from pathlib import Path

    from peft import AdaLoraConfig, PeftModel
    from torch import Tensor, nn

    from hiplora.methods.base import Setup
    from hiplora.updates import Update

ALLOCATION = ("ipt", "exp_avg_ipt", "exp_avg_unc")  # PEFT's importance of every parameter, and its two averages


class Adalora(Method):
    """Options of ``method=adalora``.

    Every matrix starts at rank ``init_r``, and the mean rank ends at ``target_r``. ``tinit``, ``delta_t`` and
    ``tfinal`` are shares of the steps: pruning begins after ``tinit``, happens every ``delta_t``, and is over for the
    last ``tfinal``. ``orthogonality`` weighs the mean of ``‖PᵀP − I‖_F`` and ``‖QQᵀ − I‖_F`` in the loss.
    """

    parity_exception: ClassVar[str | None] = "trains rank init_r; its final ranks meet target_r in their mean only"

    init_r: int
    target_r: int
    alpha: int | None
    dropout: float
    tinit: float
    tfinal: float
    delta_t: float
    beta1: float
    beta2: float
    orthogonality: float

    def check_options(self) -> None:
        check_residual_options(r=self.target_r, rank="target_r", alpha=self.alpha, dropout=self.dropout)
        require(
            self.init_r > self.target_r,
            f"method.init_r={self.init_r} is not above method.target_r={self.target_r}: nothing could be pruned",
        )
        require(self.init_r <= MOST_RANK, f"method.init_r={self.init_r} is too large: give a smaller rank, such as 24")
        require(
            self.tinit >= 0 and self.tfinal >= 0 and self.tinit + self.tfinal < 1,
            f"method.tinit={self.tinit} and method.tfinal={self.tfinal} are shares of the steps: their sum must stay "
            "below 1, so that ranks can be pruned between them",
        )
        require(0 < self.delta_t <= 1, f"method.delta_t={self.delta_t} must be a share of the steps, such as 0.01")
        for name in ("beta1", "beta2"):
            require(0 < getattr(self, name) < 1, f"method.{name}={getattr(self, name)} must lie between 0 and 1")
        require(
            0 <= self.orthogonality <= 1e6,
            f"method.orthogonality={self.orthogonality} must be from 0 (no term) to 1e6, such as 0.5",
        )

    def check(self, shapes: Mapping[str, tuple[int, int]]) -> None:
        check_rank("method.init_r", self.init_r, shapes)

    def peft_config(self, *, setup: Setup) -> AdaLoraConfig:
        from peft import AdaLoraConfig

        steps = setup.training.steps
        tinit, tfinal = round(self.tinit * steps), round(self.tfinal * steps)
        require(
            max(tinit, 1) < steps - tfinal,  # importance is known from the first step on
            f"training.steps={steps} leaves AdaLoRA no step to prune in: give more steps, or another method.tfinal",
        )
        return AdaLoraConfig(
            task_type="CAUSAL_LM",
            init_r=self.init_r,
            target_r=self.target_r,
            lora_alpha=2 * self.init_r if self.alpha is None else self.alpha,
            lora_dropout=self.dropout,
            target_modules=list(setup.targets),
            total_step=steps,
            tinit=tinit,
            tfinal=tfinal,
            deltaT=max(1, round(self.delta_t * steps)),
            beta1=self.beta1,
            beta2=self.beta2,
            orth_reg_weight=self.orthogonality,
        )

    def attach(self, backbone_model: nn.Module, *, setup: Setup) -> PeftModel:
        """A fresh adapter. PEFT's cast to fp32 makes ``ranknum``, a constant in the scaling, trainable; undone here."""
        model = super().attach(backbone_model, setup=setup)
        for layer in _layers(model).values():
            layer.ranknum.requires_grad_(False)
        return model

    def extra_loss(self, peft_model: PeftModel) -> Tensor | None:
        import torch

        if self.orthogonality == 0:
            return None
        distances = []
        for layer in _layers(peft_model).values():
            adapter = active_adapter(peft_model)
            P, Q = layer.lora_B[adapter], layer.lora_A[adapter]
            eye = torch.eye(Q.shape[0], device=Q.device, dtype=Q.dtype)
            distances += [torch.linalg.matrix_norm(gram - eye) for gram in (P.mT @ P, Q @ Q.mT)]
        return self.orthogonality * torch.stack(distances).mean()

    def after_step(self, peft_model: PeftModel, step: int) -> None:
        """Call PEFT's allocator, which reads this step's gradients; they are not zeroed yet."""
        tuner: Any = peft_model.base_model
        tuner.update_and_allocate(step)

    def state(self, peft_model: PeftModel) -> dict[str, Any]:
        allocator = _allocator(peft_model)
        pattern = _config(peft_model).rank_pattern
        return {"rank_pattern": pattern, **{name: getattr(allocator, name) for name in ALLOCATION}}

    def load_state(self, peft_model: PeftModel, state: Mapping[str, Any]) -> None:
        allocator = _allocator(peft_model)
        parameters = dict(peft_model.get_base_model().named_parameters())
        for name in ALLOCATION:
            setattr(allocator, name, {key: value.to(parameters[key].device) for key, value in state[name].items()})
        _config(peft_model).rank_pattern = state["rank_pattern"]

    def restart(self, peft_model: PeftModel) -> None:
        """Reset the allocator for a further training: no importance averages and no rank pattern.

        Pruned triplets stay in the model with the value 0 and may grow again until the new schedule prunes them. PEFT
        would save by the old rank pattern and cut off what has grown, so the pattern is removed.
        """
        _allocator(peft_model).reset_ipt()
        _config(peft_model).rank_pattern = None

    def save(self, peft_model: PeftModel, folder: Path) -> None:
        """Write a stock LoRA with a rank per matrix: PEFT rounds its own AdaLoRA to the backbone's dtype on loading."""
        save_as_lora(self, peft_model, folder)

    def updates(self, peft_model: PeftModel) -> dict[str, Update]:
        layers = _layers(peft_model)
        if not layers:  # loaded from its folder
            return {**lora_updates(peft_model)}
        return {name: _update(layer, active_adapter(peft_model)) for name, layer in layers.items()}

    def deployed_parameters(self, peft_model: PeftModel) -> int:
        """Numbers in the factors of the triplets that are not pruned; each Λ_i is folded into its column of P."""
        return factor_parameters(self.updates(peft_model))


def _layers(peft_model: PeftModel) -> dict[str, Any]:
    from peft.tuners.adalora import SVDLinear

    modules = peft_model.get_base_model().named_modules()
    return {name: module for name, module in modules if isinstance(module, SVDLinear)}


def _allocator(peft_model: PeftModel) -> Any:
    return peft_model.base_model.rankallocator


def _config(peft_model: PeftModel) -> Any:
    return peft_model.peft_config[active_adapter(peft_model)]


def _update(layer: Any, adapter: str) -> Update:
    """``s P diag(Λ) Q`` of the triplets that are not pruned; zero, of rank 1, if all are."""
    from hiplora.updates import LowRank

    A, E, B = (getattr(layer, part)[adapter].detach().float() for part in ("lora_A", "lora_E", "lora_B"))
    kept = E.flatten() != 0
    if not kept.any():
        return LowRank(B.new_zeros(B.shape[0], 1), A.new_zeros(1, A.shape[1]))
    scaling = layer.scaling[adapter] / (float(layer.ranknum[adapter]) + 1e-5)  # PEFT's guard against division by rank 0
    return LowRank(B[:, kept] * (E.flatten()[kept] * scaling), A[kept])
