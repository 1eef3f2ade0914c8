"""DoRA (Liu et al. 2024) as in PEFT: LoRA for the directions of the weight's rows, their magnitudes trained separately.

``W' = diag(m / ‖W + s B A‖_rows) (W + s B A)``, so ``ΔW = W' − W`` has full rank.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from hiplora.methods.base import active_adapter
from hiplora.methods.lora import PlainLora, lora_updates

if TYPE_CHECKING:
    from peft import LoraConfig, PeftModel
    from torch import Tensor, nn

    from hiplora.methods.base import Setup
    from hiplora.updates import LowRank, Update


class Dora(PlainLora):
    """Options of ``method=dora``, those of LoRA."""

    parity_exception: ClassVar[str | None] = "stores one magnitude per row of every matrix"
    full_rank: ClassVar[bool] = True

    def peft_config(self, *, setup: Setup) -> LoraConfig:
        peft_config = super().peft_config(setup=setup)
        peft_config.use_dora = True
        return peft_config

    def attach(self, backbone_model: nn.Module, *, setup: Setup) -> PeftModel:
        """A fresh adapter with magnitudes computed in fp32: PEFT rounds them to the weight's dtype, so ΔW is not 0."""
        from hiplora.tuner.targets import matrix_of

        model = super().attach(backbone_model, setup=setup)
        adapter = active_adapter(model)
        for name in lora_updates(model):
            layer: Any = model.get_base_model().get_submodule(name)
            magnitude = layer.lora_magnitude_vector[adapter].weight
            magnitude.data = matrix_of(name, layer).float().norm(dim=1).to(magnitude.dtype)
        return model

    def updates(self, peft_model: PeftModel) -> dict[str, Update]:
        from hiplora.tuner.targets import matrix_of

        adapter = active_adapter(peft_model)
        updates: dict[str, Update] = {}
        for name, product in lora_updates(peft_model).items():
            layer: Any = peft_model.get_base_model().get_submodule(name)
            magnitude = layer.lora_magnitude_vector[adapter].weight.detach().float().clone()
            updates[name] = _deferred(matrix_of(name, layer), product, magnitude)
        return updates


def _deferred(weight: Tensor, product: LowRank, magnitude: Tensor) -> Update:
    """ΔW (m, n), formed from the backbone's weight on every access."""
    from hiplora.updates import Deferred, dora

    return Deferred(lambda: dora(weight.float(), product, magnitude), product.shape)
