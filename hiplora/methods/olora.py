"""O-LoRA (Wang et al. 2023, arXiv 2310.14152): a LoRA of its own for every task, kept orthogonal to those before.

After task t the update is ``Σ_{i≤t} s B_i A_i``. The factors of earlier tasks are frozen and stay part of the model;
the task's own are trained under ``λ₁ Σ |A_old A_newᵀ|``, an L1 sum over all entries of all matrices, where ``A_old``
holds the rows of all earlier tasks. On a first task there are none, and it is plain LoRA.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, ClassVar

from hiplora.methods.base import active_adapter, require
from hiplora.methods.lora import PlainLora, factor_parameters, lora_updates, save_as_lora

if TYPE_CHECKING:
    from pathlib import Path

    from peft import PeftModel
    from torch import Tensor, nn

    from hiplora.updates import LowRank, Update


class Olora(PlainLora):
    """Options of ``method=olora``; ``orthogonality`` is λ₁. Dropout is on the trained factors' input alone."""

    parity_exception: ClassVar[str | None] = "its rank grows by r with every task that it is trained on"
    fresh_factors: ClassVar[bool] = True

    orthogonality: float

    def check_options(self) -> None:
        super().check_options()
        require(
            0 <= self.orthogonality <= 1e6,
            f"method.orthogonality={self.orthogonality} must be from 0 (no penalty) to 1e6, such as 0.5",
        )

    def extra_loss(self, peft_model: PeftModel) -> Tensor | None:
        old = _old(peft_model)
        if not old or self.orthogonality == 0:
            return None
        overlaps = [(old[name].A @ layer["A"].mT).abs().sum() for name, layer in _trained(peft_model).items()]
        return self.orthogonality * sum(overlaps[1:], overlaps[0])

    def state(self, peft_model: PeftModel) -> dict[str, Any]:
        """The frozen factors of the tasks before, the scaling folded into B."""
        return {"old": {name: {"B": update.B, "A": update.A} for name, update in _old(peft_model).items()}}

    def load_state(self, peft_model: PeftModel, state: Mapping[str, Any]) -> None:
        from hiplora.updates import LowRank

        _hold(peft_model, {name: LowRank(kept["B"], kept["A"]) for name, kept in state["old"].items()})

    def restart(self, peft_model: PeftModel) -> None:
        """Freeze what was trained beside what is frozen, and start new factors as LoRA does: A at random, B at 0.

        The seed is that of the run in every task. So the number of frozen directions is added to it: factors that start
        where the old ones started would be penalised from the first step on.
        """
        import torch

        old: dict[str, LowRank] = self.updates(peft_model)  # type: ignore[assignment]
        frozen = next(iter(old.values())).rank
        generator = torch.Generator().manual_seed(torch.initial_seed() + frozen)
        with torch.no_grad():
            for layer in _trained(peft_model).values():
                drawn = torch.empty(layer["A"].shape)
                torch.nn.init.kaiming_uniform_(drawn, a=math.sqrt(5), generator=generator)
                layer["A"].copy_(drawn)
                layer["B"].zero_()
        _hold(peft_model, old)

    def detach(self, peft_model: PeftModel) -> nn.Module:
        _hold(peft_model, {})
        return super().detach(peft_model)

    def save(self, peft_model: PeftModel, folder: Path) -> None:
        """A stock LoRA whose rank is that of all tasks together."""
        save_as_lora(self, peft_model, folder)

    def updates(self, peft_model: PeftModel) -> dict[str, Update]:
        from hiplora.updates import add

        old, trained = _old(peft_model), lora_updates(peft_model)
        return {name: add([old[name], update]) if old else update for name, update in trained.items()}

    def deployed_parameters(self, peft_model: PeftModel) -> int:
        return factor_parameters(self.updates(peft_model))


def _trained(peft_model: PeftModel) -> dict[str, dict[str, Tensor]]:
    """A (r, n) and B (m, r) of every matrix as they are trained."""
    from peft.tuners.lora import LoraLayer

    adapter = active_adapter(peft_model)
    modules = peft_model.get_base_model().named_modules()
    layers: dict[str, Any] = {name: module for name, module in modules if isinstance(module, LoraLayer)}
    return {
        name: {"A": layer.lora_A[adapter].weight, "B": layer.lora_B[adapter].weight} for name, layer in layers.items()
    }


def _hold(peft_model: Any, old: Mapping[str, LowRank]) -> None:
    """Make these updates the frozen part of the model, beside the weights, in the place of what was there."""
    from hiplora.merging.attached import attached

    getattr(peft_model, "olora_attached", ExitStack()).close()
    backbone, stack = peft_model.get_base_model(), ExitStack()
    device = next(backbone.parameters()).device
    held = {name: update.to(device) for name, update in old.items()}
    stack.enter_context(attached(backbone, {f"{name}.base_layer": update for name, update in held.items()}))
    peft_model.olora_old, peft_model.olora_attached = held, stack


def _old(peft_model: PeftModel) -> dict[str, LowRank]:
    return getattr(peft_model, "olora_old", {})
