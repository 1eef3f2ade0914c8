"""LoRA (Hu et al. 2021), PEFT's own: ``ΔW = s B A`` with ``s = α / r``. The baseline."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from hiplora.methods.base import Method, active_adapter, check_rank, check_residual_options

if TYPE_CHECKING:
    from pathlib import Path

    from peft import LoraConfig, PeftModel

    from hiplora.methods.base import Setup
    from hiplora.updates import LowRank, Update


class Lora(Method):
    """Options of ``method=lora``; ``alpha`` null means twice the rank."""

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


def save_as_lora(method: Method, peft_model: PeftModel, folder: Path) -> None:
    """Write the method's low-rank updates as a stock PEFT LoRA for the unchanged backbone, scaling 1, in fp32."""
    from hiplora.adapters.writing import write_lora

    config: Any = peft_model.peft_config[active_adapter(peft_model)]
    inherited = {name: getattr(config, name) for name in ("base_model_name_or_path", "task_type")}
    write_lora(method.updates(peft_model), folder, ranks="own", **inherited)


def factor_parameters(updates: Mapping[str, Any]) -> int:
    """Numbers in the factors that :func:`save_as_lora` writes."""
    return sum(update.B.numel() + update.A.numel() for update in updates.values())


def lora_updates(peft_model: PeftModel) -> dict[str, LowRank]:
    """``s B A`` of every LoRA layer of the active adapter, the scaling folded into B; detached, fp32."""
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
