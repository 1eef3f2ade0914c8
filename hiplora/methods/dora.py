"""DoRA (Liu et al. 2024), PEFT's own: direction by LoRA, magnitude of every row of the weight apart.

``W' = diag(m / ‖W + s B A‖_rows) (W + s B A)``, so ``ΔW = W' − W`` has full rank.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from hiplora.methods.base import active_adapter
from hiplora.methods.lora import Lora, lora_updates

if TYPE_CHECKING:
    from peft import LoraConfig, PeftModel

    from hiplora.config import RunConfig
    from hiplora.updates import Update


@dataclass(kw_only=True)
class Dora(Lora):
    """Options of ``method=dora``, those of LoRA."""

    parity_exception: ClassVar[str | None] = "stores one magnitude per row of every matrix"

    def peft_config(self, *, config: RunConfig) -> LoraConfig:
        peft_config = super().peft_config(config=config)
        peft_config.use_dora = True
        return peft_config

    def updates(self, peft_model: PeftModel) -> dict[str, Update]:
        from hiplora.updates import Dense, dora

        adapter = active_adapter(peft_model)
        updates: dict[str, Update] = {}
        for name, product in lora_updates(peft_model).items():
            layer: Any = peft_model.get_base_model().get_submodule(name)
            weight = layer.get_base_layer().weight.detach().float()
            magnitude = layer.lora_magnitude_vector[adapter].weight.detach().float()
            updates[name] = Dense(dora(weight, product, magnitude))
        return updates
