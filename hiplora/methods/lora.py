"""LoRA (Hu et al. 2021) as in PEFT, ``ΔW = s B A`` with ``s = α / r``: the baseline, and three cited variants.

rsLoRA (Kalajdzievski 2023) scales by ``α / √r``; LoRA+ (Hayou et al. 2024) trains B at a multiple of A's learning
rate; LoRA-FA (Zhang et al. 2023) freezes A at its random start.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

from hiplora.config import Neutral
from hiplora.methods.base import (
    Method,
    Ratio,
    active_adapter,
    check_rank,
    check_residual_options,
    lora_plus,
    require,
)

if TYPE_CHECKING:
    from pathlib import Path

    from peft import LoraConfig, PeftModel
    from torch import nn

    from hiplora.methods.base import Setup
    from hiplora.training.options import Training
    from hiplora.updates import LowRank, Update


class PlainLora(Method):
    """The options of every method that is one of PEFT's LoRAs; ``alpha`` null stands for twice the rank."""

    r: int
    alpha: int | None
    dropout: float

    def check_options(self) -> None:
        check_residual_options(r=self.r, alpha=self.alpha, dropout=self.dropout)

    def check(self, shapes: Mapping[str, tuple[int, int]]) -> None:
        check_rank("method.r", self.r, shapes)

    def peft_config(self, *, setup: Setup) -> LoraConfig:
        from peft import LoraConfig

        return LoraConfig(
            task_type="CAUSAL_LM",
            r=self.r,
            lora_alpha=2 * self.r if self.alpha is None else self.alpha,
            lora_dropout=self.dropout,
            target_modules=list(setup.targets),
        )

    def updates(self, peft_model: PeftModel) -> dict[str, Update]:
        return {**lora_updates(peft_model)}


class Lora(PlainLora):
    """Options of ``method=lora``.

    ``rslora`` scales by α / √r, ``lora_plus`` is the ratio of B's learning rate to A's, ``freeze_a`` trains B alone.
    """

    rslora: Annotated[bool, Neutral(False)]
    lora_plus: Annotated[Ratio, Neutral(1.0)]
    freeze_a: Annotated[bool, Neutral(False)]

    def check_options(self) -> None:
        super().check_options()
        require(
            self.lora_plus == 1 or not self.freeze_a,
            f"method.lora_plus={self.lora_plus} is a multiple of A's learning rate, but method.freeze_a=true trains no "
            "A: drop one of the two",
        )

    def peft_config(self, *, setup: Setup) -> LoraConfig:
        peft_config = super().peft_config(setup=setup)
        peft_config.use_rslora = self.rslora
        return peft_config

    def attach(self, backbone_model: nn.Module, *, setup: Setup) -> PeftModel:
        model = super().attach(backbone_model, setup=setup)
        if self.freeze_a:
            for A in _down_factors(model).values():
                A.requires_grad_(False)
        return model

    def param_groups(self, peft_model: PeftModel, *, training: Training) -> list[dict[str, Any]]:
        return lora_plus(super().param_groups(peft_model, training=training), peft_model, self.lora_plus)

    def state(self, peft_model: PeftModel) -> dict[str, Any]:
        """A, if it is frozen: the trained B is only meaningful with that A."""
        frozen = {name: A.detach() for name, A in _down_factors(peft_model).items()}
        return {"A": frozen} if self.freeze_a else {}

    def load_state(self, peft_model: PeftModel, state: Mapping[str, Any]) -> None:
        for name, A in state.get("A", {}).items():
            _down_factors(peft_model)[name].data.copy_(A)


def _down_factors(peft_model: PeftModel) -> dict[str, Any]:
    return {name: parameter for name, parameter in peft_model.named_parameters() if ".lora_A." in name}


def save_as_lora(method: Method, peft_model: PeftModel, folder: Path) -> None:
    """Write the method's low-rank updates as a stock PEFT LoRA on the unchanged backbone, with scaling 1, in fp32."""
    from hiplora.adapters.writing import write_lora

    config: Any = peft_model.peft_config[active_adapter(peft_model)]
    inherited = {name: getattr(config, name) for name in ("base_model_name_or_path", "task_type")}
    write_lora(method.updates(peft_model), folder, ranks="own", **inherited)


def factor_parameters(updates: Mapping[str, Any]) -> int:
    """Numbers in the factors that :func:`save_as_lora` writes."""
    return sum(update.B.numel() + update.A.numel() for update in updates.values())


def lora_updates(peft_model: PeftModel) -> dict[str, LowRank]:
    """``s B A`` of the active adapter's LoRA layers, by name, with the scaling folded into B; detached, fp32."""
    from peft.tuners.lora import LoraLayer

    from hiplora.updates import LowRank

    adapter = active_adapter(peft_model)
    updates: dict[str, LowRank] = {}
    for name, layer in peft_model.get_base_model().named_modules():
        if isinstance(layer, LoraLayer) and adapter in layer.lora_A:
            A, B = (
                factors[adapter].get_parameter("weight").detach().float() for factors in (layer.lora_A, layer.lora_B)
            )
            updates[name] = LowRank(B=B * layer.scaling[adapter], A=A.clone())
    return updates
