"""HiP-LoRA: ``ΔW = U diag(φ) Vᵀ + s (I − P_U) B A (I − P_V)`` with a stability budget on φ."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from hiplora.config import Neutral
from hiplora.methods.base import (
    Method,
    Ratio,
    active_adapter,
    check_directions_suffice,
    check_rank,
    lora_plus,
)
from hiplora.methods.proj import basis_options, check_directions, directions, tuner
from hiplora.tuner.options import check_options

if TYPE_CHECKING:
    from peft import PeftModel
    from torch import Tensor

    from hiplora.methods.base import Setup
    from hiplora.spectral.options import Svd
    from hiplora.training.options import Training
    from hiplora.tuner.registration import HipLoraConfig
    from hiplora.updates import Update


class Hip(Method):
    """Options of ``method=hip``.

    ``stability`` is λ and ``gamma`` is γ of the budget ``R = λ Σ w_i φ_i²`` with ``w_i ∝ σ_i^γ``. ``lr_scale``
    multiplies the learning rate of φ, ``lora_plus`` that of B. ``project_residual`` and ``zero_init`` are switches for
    ablations.
    """

    uses_svd: ClassVar[bool] = True
    channel: ClassVar[bool] = True

    r: int
    k: int
    alpha: int | None
    dropout: float
    stability: float
    gamma: float
    parameterization: str
    lr_scale: float
    project_residual: bool
    zero_init: bool
    lora_plus: Annotated[Ratio, Neutral(1.0)]

    def check_options(self) -> None:
        check_options(prefix="method.", **self.fields())

    def check_svd(self, svd: Svd) -> None:
        check_directions_suffice(self.k, svd)

    def check(self, shapes: Mapping[str, tuple[int, int]]) -> None:
        check_rank("method.k", self.k, shapes)
        check_rank("method.r", self.r, shapes)

    def peft_config(self, *, setup: Setup) -> HipLoraConfig:
        from hiplora.tuner.registration import HipLoraConfig

        return HipLoraConfig(
            r=self.r,
            k=self.k,
            lora_alpha=self.alpha,
            lora_dropout=self.dropout,
            stability=self.stability,
            gamma=self.gamma,
            parameterization=self.parameterization,
            lr_scale=self.lr_scale,
            project_residual=self.project_residual,
            zero_init=self.zero_init,
            **basis_options(setup),
        )

    def param_groups(self, peft_model: PeftModel, *, training: Training) -> list[dict[str, Any]]:
        """AdamW's groups: the residual factors, φ with its own learning rate and, with LoRA+, B."""
        groups = tuner(peft_model).param_groups(lr=training.lr, weight_decay=training.weight_decay)
        return lora_plus(groups, peft_model, self.lora_plus)

    def extra_loss(self, peft_model: PeftModel) -> Tensor | None:
        return tuner(peft_model).stability_penalty()

    def after_step(self, peft_model: PeftModel, step: int) -> None:
        tuner(peft_model).retract()

    def state(self, peft_model: PeftModel) -> dict[str, Any]:
        return {"directions": directions(peft_model)}

    def load_state(self, peft_model: PeftModel, state: Mapping[str, Any]) -> None:
        check_directions(peft_model, state["directions"])

    def updates(self, peft_model: PeftModel) -> dict[str, Update]:
        return tuner(peft_model).updates(active_adapter(peft_model))
