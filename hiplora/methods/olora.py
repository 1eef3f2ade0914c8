"""O-LoRA (Wang et al. 2023, arXiv 2310.14152): a new LoRA for every task, kept orthogonal to those of earlier tasks.

After task t the update is ``Σ_{i≤t} s B_i A_i``. The factors of earlier tasks are frozen and stay part of the model.
The current task's are trained with the penalty ``λ₁ Σ |A_old A_newᵀ|``, summed over all entries of all matrices, where
``A_old`` holds the rows of all earlier tasks. The first task has none, so there it is plain LoRA.
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
    """Options of ``method=olora``; ``orthogonality`` is λ₁. Dropout acts on the input of the trained factors alone."""

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
        """The frozen factors of earlier tasks, with the scaling folded into B."""
        return {"old": {name: {"B": update.B, "A": update.A} for name, update in _old(peft_model).items()}}

    def load_state(self, peft_model: PeftModel, state: Mapping[str, Any]) -> None:
        from hiplora.updates import LowRank

        _hold(peft_model, {name: LowRank(kept["B"], kept["A"]) for name, kept in state["old"].items()})

    def restart(self, peft_model: PeftModel) -> None:
        """Freeze the trained factors with the older ones, and start new factors as LoRA does: A random, B zero.

        All tasks of a run have one seed. The frozen rank is added to it, because an A drawn from the seed alone would
        be the old A's start, and the penalty would be large from the first step on.
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
        """Write a stock LoRA whose rank is the sum over all tasks."""
        save_as_lora(self, peft_model, folder)

    def updates(self, peft_model: PeftModel) -> dict[str, Update]:
        from hiplora.updates import add

        old, trained = _old(peft_model), lora_updates(peft_model)
        return {name: add([old[name], update]) if old else update for name, update in trained.items()}

    def deployed_parameters(self, peft_model: PeftModel) -> int:
        return factor_parameters(self.updates(peft_model))


def _trained(peft_model: PeftModel) -> dict[str, dict[str, Tensor]]:
    """The trained parameters A (r, n) and B (m, r) of every matrix."""
    from peft.tuners.lora import LoraLayer

    adapter = active_adapter(peft_model)
    modules = peft_model.get_base_model().named_modules()
    layers: dict[str, Any] = {name: module for name, module in modules if isinstance(module, LoraLayer)}
    return {
        name: {"A": layer.lora_A[adapter].weight, "B": layer.lora_B[adapter].weight} for name, layer in layers.items()
    }


def _hold(peft_model: Any, old: Mapping[str, LowRank]) -> None:
    """Attach these updates as the frozen part of the model, in place of the previous ones; weights do not change."""
    from hiplora.merging.attached import attached

    getattr(peft_model, "olora_attached", ExitStack()).close()
    backbone, stack = peft_model.get_base_model(), ExitStack()
    device = next(backbone.parameters()).device
    held = {name: update.to(device) for name, update in old.items()}
    stack.enter_context(attached(backbone, {f"{name}.base_layer": update for name, update in held.items()}))
    peft_model.olora_old, peft_model.olora_attached = held, stack


def _old(peft_model: PeftModel) -> dict[str, LowRank]:
    return getattr(peft_model, "olora_old", {})
