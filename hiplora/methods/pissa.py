"""PiSSA (Meng et al. 2024), PEFT's own initialisation: train the leading singular triplets themselves.

PEFT starts ``s B₀A₀`` at the best rank-r approximation of ``W`` and leaves ``W − s B₀A₀`` in the backbone. The
update of the backbone as it was is therefore ``ΔW = s (BA − B₀A₀)``, of rank up to 2 r, and that is what is
saved, evaluated and merged: a stock LoRA of rank 2 r, which asks for no changed backbone. In bf16 the training
itself sees ``W − s B₀A₀`` rounded to the backbone's dtype; that rounding is not part of the update.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from hiplora.methods.base import require
from hiplora.methods.lora import Lora, factor_parameters, lora_updates, save_as_lora

if TYPE_CHECKING:
    from pathlib import Path

    from peft import LoraConfig, PeftModel
    from torch import Tensor, nn

    from hiplora.methods.base import Setup
    from hiplora.updates import LowRank, Update


class Pissa(Lora):
    """Options of ``method=pissa``; ``iterations`` null takes the exact SVD, a number PEFT's randomised one."""

    parity_exception: ClassVar[str | None] = "stores the triplets taken out of the backbone beside the trained ones"

    iterations: int | None

    def check_options(self) -> None:
        super().check_options()
        require(
            self.iterations is None or self.iterations >= 1,
            f"method.iterations={self.iterations} must be 1 or more, or null for the exact SVD",
        )

    def peft_config(self, *, setup: Setup) -> LoraConfig:
        peft_config = super().peft_config(setup=setup)
        how: Any = "pissa" if self.iterations is None else f"pissa_niter_{self.iterations}"
        peft_config.init_lora_weights = how
        return peft_config

    def attach(self, backbone_model: nn.Module, *, setup: Setup) -> PeftModel:
        """As every method; the weights that PEFT changes are kept on the CPU until :meth:`detach`."""
        targets = set(setup.targets)
        originals = {
            name: module.get_parameter("weight").detach().to("cpu", copy=True)
            for name, module in backbone_model.named_modules()
            if name.rpartition(".")[2] in targets and hasattr(module, "weight")
        }
        model = super().attach(backbone_model, setup=setup)
        start: Any = _Start(originals, lora_updates(model))
        model.pissa_start = start
        return model

    def detach(self, peft_model: PeftModel) -> nn.Module:
        start = _start(peft_model)
        backbone = super().detach(peft_model)
        if start is not None:
            for name, weight in start.weights.items():
                held = backbone.get_submodule(name).get_parameter("weight")
                held.data = weight.to(held.device)
        return backbone

    def save(self, peft_model: PeftModel, folder: Path) -> None:
        """A stock LoRA of rank 2 r for the unchanged backbone."""
        save_as_lora(self, peft_model, folder)

    def updates(self, peft_model: PeftModel) -> dict[str, Update]:
        start = _start(peft_model)
        trained = lora_updates(peft_model)
        if start is None:  # loaded from its folder: the subtraction is in the factors
            return {**trained}
        return {name: _difference(update, start.factors[name]) for name, update in trained.items()}

    def deployed_parameters(self, peft_model: PeftModel) -> int:
        return factor_parameters(self.updates(peft_model))


@dataclass(frozen=True)
class _Start:
    """What the backbone and the adapter were: W (m, n) by module, and ``s B₀A₀``."""

    weights: dict[str, Tensor]
    factors: dict[str, LowRank]


def _start(peft_model: PeftModel) -> _Start | None:
    return getattr(peft_model, "pissa_start", None)


def _difference(trained: LowRank, start: LowRank) -> LowRank:
    """``s (BA − B₀A₀)`` as U Σ · Vᵀ of its thin SVD.

    The two products all but cancel, so factors left side by side would lose digits in bf16; and what depends on the
    factorisation (Pico, Core Space) would see the start that all adapters share, not the updates.
    """
    import torch

    from hiplora.updates import LowRank, thin_svd

    both = LowRank(torch.cat([trained.B, -start.B], dim=1), torch.cat([trained.A, start.A], dim=0))
    u, s, v = thin_svd(both.to(torch.float64))
    return LowRank(u * s, v.mT).to(torch.float32)
