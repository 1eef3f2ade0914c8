"""Proj-LoRA: ``ΔW = s (I − P_U) B A (I − P_V)``, LoRA kept out of the leading singular subspaces.

It is HiP-LoRA without the principal channel: a baseline, and the ablation of that channel. Its controls are random
subspaces of the same size, and ``ΔW = s P_U B A P_V``, LoRA confined inside either kind of subspace.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, cast

from hiplora.config import Neutral
from hiplora.methods.base import (
    Method,
    Ratio,
    active_adapter,
    check_directions_suffice,
    check_rank,
    lora_plus,
    require,
)
from hiplora.tuner.options import check_options

if TYPE_CHECKING:
    from peft import PeftModel
    from torch import Tensor

    from hiplora.methods.base import Setup
    from hiplora.spectral.options import Svd
    from hiplora.training.options import Training
    from hiplora.tuner.model import HipLoraModel
    from hiplora.tuner.registration import HipLoraConfig
    from hiplora.updates import Update


class Proj(Method):
    """Options of ``method=proj``; ``k`` is the size of the subspaces.

    ``basis`` is ``singular``, or ``random``: drawn from ``basis_seed`` and the matrix's name. ``side`` says whether the
    update lies ``outside`` the subspaces or ``inside``. ``lora_plus`` is the ratio of B's learning rate to A's.
    """

    uses_svd: ClassVar[bool] = True

    r: int
    k: int
    alpha: int | None
    dropout: float
    basis: Annotated[str, Neutral("singular")]
    basis_seed: Annotated[int, Neutral(0)]
    side: Annotated[str, Neutral("outside")]
    lora_plus: Annotated[Ratio, Neutral(1.0)]

    def check_options(self) -> None:
        check_options(prefix="method.", principal=False, **self.fields())

    def check_svd(self, svd: Svd) -> None:
        if self.basis == "singular":  # random directions are drawn, as many as k
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
            principal=False,
            basis=self.basis,
            basis_seed=self.basis_seed,
            side=self.side,
            **basis_options(setup),
        )

    def param_groups(self, peft_model: PeftModel, *, training: Training) -> list[dict[str, Any]]:
        return lora_plus(super().param_groups(peft_model, training=training), peft_model, self.lora_plus)

    def after_step(self, peft_model: PeftModel, step: int) -> None:
        tuner(peft_model).retract()

    def state(self, peft_model: PeftModel) -> dict[str, Any]:
        return {"directions": directions(peft_model)}

    def load_state(self, peft_model: PeftModel, state: Mapping[str, Any]) -> None:
        check_directions(peft_model, state["directions"])

    def updates(self, peft_model: PeftModel) -> dict[str, Update]:
        return tuner(peft_model).updates(active_adapter(peft_model))


def tuner(peft_model: PeftModel) -> HipLoraModel:
    """The HiP-LoRA tuner inside the PEFT model."""
    return cast("HipLoraModel", peft_model.base_model)


def directions(peft_model: PeftModel) -> dict[str, Tensor]:
    """A sketch (2, k) of the directions of every matrix; the trained tensors are only valid with these directions."""
    from hiplora.tuner.model import adapted_layers

    adapter = active_adapter(peft_model)
    layers = adapted_layers(peft_model.get_base_model(), adapter)
    return {name: layer.basis(adapter).sketch(layer.hip_config[adapter].k) for name, layer in layers.items()}


def check_directions(peft_model: PeftModel, kept: Mapping[str, Tensor]) -> None:
    """Refuse to continue with directions that do not match the sketches. Raises UserError."""
    from hiplora.tuner.identity import TOLERANCE

    for name, sketch in directions(peft_model).items():
        difference = (sketch - kept[name]).abs().max().item()
        require(
            difference <= TOLERANCE,
            f"the adapter to continue from was trained with other directions of {name} than those computed here "
            f"(their sketches differ by {difference:.2g}): train it again on this machine",
        )


def basis_options(setup: Setup) -> dict[str, Any]:
    """The fields of HipLoraConfig that come from the model and svd groups of the configuration."""
    svd = setup.svd
    assert svd is not None  # uses_svd is True
    return {
        "task_type": "CAUSAL_LM",
        "target_modules": list(setup.targets),
        "k_max": svd.k_max,
        "svd_recipe": svd.recipe,
        "svd_seed": svd.seed,
        "svd_oversampling": svd.oversampling,
        "svd_power_iterations": svd.power_iterations,
        "svd_tolerance": svd.tolerance,
        "svd_exact_up_to": svd.exact_up_to,
        "save_basis": setup.save_basis,
    }
