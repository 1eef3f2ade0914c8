"""PiSSA (Meng et al. 2024) with PEFT's initialisation: LoRA that starts at the leading singular triplets.

PEFT starts ``s B₀A₀`` at the best rank-r approximation of ``W`` and leaves ``W − s B₀A₀`` in the backbone. The update
of the original backbone is therefore ``ΔW = s (BA − B₀A₀)``, of rank up to 2 r. It is saved, evaluated and merged as a
stock LoRA of rank 2 r on the unchanged backbone. In bf16 the training itself sees ``W − s B₀A₀`` rounded to the
backbone's dtype; that rounding is not part of the update.

A continued training keeps the first training's B₀ and A₀, so that ``ΔW`` covers all its trainings. They are stored with
the trained tensors, because a second SVD may differ in its last bits.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

from hiplora.methods.base import active_adapter, require
from hiplora.methods.lora import PlainLora, factor_parameters, lora_updates, save_as_lora

if TYPE_CHECKING:
    from pathlib import Path

    from peft import LoraConfig, PeftModel
    from torch import Tensor, nn

    from hiplora.methods.base import Setup
    from hiplora.updates import LowRank, Update


class Pissa(PlainLora):
    """Options of ``method=pissa``; ``iterations`` null is the exact SVD, a number is PEFT's randomised one."""

    parity_exception: ClassVar[str | None] = "stores the triplets taken out of the backbone beside the trained ones"

    iterations: int | None

    def check_options(self) -> None:
        super().check_options()
        require(
            self.iterations is None or 1 <= self.iterations <= 1000,
            f"method.iterations={self.iterations} must be from 1 to 1000, or null for the exact SVD",
        )

    def peft_config(self, *, setup: Setup) -> LoraConfig:
        peft_config = super().peft_config(setup=setup)
        how: Any = "pissa" if self.iterations is None else f"pissa_niter_{self.iterations}"
        peft_config.init_lora_weights = how
        return peft_config

    def attach(self, backbone_model: nn.Module, *, setup: Setup) -> PeftModel:
        """A fresh adapter; copies of the weights that PEFT changes stay on the CPU until :meth:`detach`."""
        from hiplora.spectral.stored import refuse_quantised_module

        ends, originals = tuple(f".{target}" for target in setup.targets), {}
        for name, module in backbone_model.named_modules():
            if f".{name}".endswith(ends):
                refuse_quantised_module(name, module)
                if hasattr(module, "weight"):
                    originals[name] = module.get_parameter("weight").detach().to("cpu", copy=True)
        with _factors_taken_out() as taken:
            model = super().attach(backbone_model, setup=setup)
        layers = {module: name for name, module in model.get_base_model().named_modules()}
        _keep(model, _Start(originals, {layers[layer]: factors for layer, factors in taken.items()}))
        return model

    def state(self, peft_model: PeftModel) -> dict[str, Any]:
        """B₀ and A₀ of every matrix, in the fp32 in which PEFT subtracted their product from the weights."""
        start = _start(peft_model)
        assert start is not None  # a model that trains has one
        return {"start": {name: {"B": B, "A": A} for name, (B, A) in start.factors.items()}}

    def load_state(self, peft_model: PeftModel, state: Mapping[str, Any]) -> None:
        """Set the backbone's weights to ``W − s B₀A₀`` with the stored B₀ and A₀."""
        from hiplora.tuner.targets import transposed

        start, adapter = _start(peft_model), active_adapter(peft_model)
        assert start is not None
        factors: dict[str, tuple[Tensor, Tensor]] = {}
        for name, kept in state["start"].items():
            layer: Any = peft_model.get_base_model().get_submodule(name)
            held = layer.get_base_layer().weight
            B, A = factors[name] = kept["B"].to(held.device), kept["A"].to(held.device)
            product = layer.scaling[adapter] * B @ A
            held.data = _without(start.weights[name].to(held.device), product.mT if transposed(layer) else product)
        _keep(peft_model, replace(start, factors=factors))

    def detach(self, peft_model: PeftModel) -> nn.Module:
        start = _start(peft_model)
        backbone = super().detach(peft_model)
        if start is not None:
            for name, weight in start.weights.items():
                held = backbone.get_submodule(name).get_parameter("weight")
                held.data = weight.to(held.device)
        return backbone

    def save(self, peft_model: PeftModel, folder: Path) -> None:
        """Write a stock LoRA of rank 2 r for the unchanged backbone."""
        save_as_lora(self, peft_model, folder)

    def updates(self, peft_model: PeftModel) -> dict[str, Update]:
        from hiplora.updates import difference

        start = _start(peft_model)
        trained = lora_updates(peft_model)
        if start is None:  # loaded from its folder, where the factors include the subtraction
            return {**trained}
        adapter = active_adapter(peft_model)
        updates: dict[str, Update] = {}
        for name, update in trained.items():
            layer: Any = peft_model.get_base_model().get_submodule(name)
            updates[name] = difference(update, start.trained_from(name, layer.scaling[adapter]))
        return updates

    def deployed_parameters(self, peft_model: PeftModel) -> int:
        return factor_parameters(self.updates(peft_model))


@dataclass(frozen=True)
class _Start:
    """The original weights W (m, n) by module, on the CPU, and B₀ (m, r) and A₀ (r, n) in fp32."""

    weights: dict[str, Tensor]
    factors: dict[str, tuple[Tensor, Tensor]]

    def trained_from(self, name: str, scaling: float) -> LowRank:
        """``s B₀A₀`` at the start of training: after the subtraction, PEFT rounds B₀ and A₀ to the weight's dtype."""
        from hiplora.updates import LowRank

        B, A = (factor.to(self.weights[name].dtype).float() for factor in self.factors[name])
        return LowRank(B=B * scaling, A=A)


@contextmanager
def _factors_taken_out() -> Iterator[dict[Any, tuple[Tensor, Tensor]]]:
    """A context that collects B₀ and A₀ by layer from PiSSA initialisations: PEFT keeps only rounded ones."""
    from peft.tuners.lora import LoraLayer

    taken: dict[Any, tuple[Tensor, Tensor]] = {}
    pefts: Any = LoraLayer
    initialise = pefts.pissa_init

    def pissa_init(layer: Any, adapter: str, how: str) -> None:
        initialise(layer, adapter, how)
        B, A = (factors[adapter].weight.detach().clone() for factors in (layer.lora_B, layer.lora_A))
        taken[layer] = (B, A)

    pefts.pissa_init = pissa_init
    try:
        yield taken
    finally:
        pefts.pissa_init = initialise


def _without(weight: Tensor, product: Tensor) -> Tensor:
    """``W − s B₀A₀`` as PEFT computes it: in fp32, rounded to the dtype of W."""
    return (weight.float() - product).to(weight.dtype)


def _keep(peft_model: Any, start: _Start) -> None:
    peft_model.pissa_start = start


def _start(peft_model: PeftModel) -> _Start | None:
    return getattr(peft_model, "pissa_start", None)
