"""OSF, orthogonal subspace fine-tuning (Nayak et al. 2025, arXiv 2504.07097), as in PEFT.

``W = U_high Σ_high V_highᵀ + U_low Σ_low V_lowᵀ``: the leading singular triplets are frozen and the others are trained,
with gradients projected out of the frozen subspaces. ``ΔW`` has full rank. Like every method here, a continued training
uses the singular directions of the original weights; the paper decomposes the weights anew before each task.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field

from hiplora.methods.base import Method, active_adapter, require

if TYPE_CHECKING:
    from pathlib import Path

    from peft import OSFConfig, PeftModel
    from torch import Tensor, nn

    from hiplora.methods.base import Setup
    from hiplora.training.options import Training
    from hiplora.updates import Update


class Osf(Method):
    """Options of ``method=osf``.

    ``preserve`` is the frozen share of the singular directions of every matrix, ``lr_scale`` multiplies the learning
    rate.
    """

    parity_exception: ClassVar[str | None] = "trains every singular triplet but the leading ones"
    full_rank: ClassVar[bool] = True

    preserve: Annotated[float, Field(gt=0, lt=1, examples=[0.5])]
    lr_scale: Annotated[float, Field(ge=1e-6, le=1e6, examples=[0.05])]

    def check(self, shapes: Mapping[str, tuple[int, int]]) -> None:
        for name, shape in shapes.items():
            require(
                int(min(shape) * self.preserve) > 0,
                f"method.preserve={self.preserve} keeps no direction of {name} ({shape[0]} × {shape[1]}): give a "
                "larger share, such as 0.5",
            )

    def peft_config(self, *, setup: Setup) -> OSFConfig:
        from peft import OSFConfig

        return OSFConfig(task_type="CAUSAL_LM", effective_rank=float(self.preserve), target_modules=list(setup.targets))

    def attach(self, backbone_model: nn.Module, *, setup: Setup) -> PeftModel:
        from hiplora.spectral.stored import refuse_quantised_module

        ends = tuple(f".{target}" for target in setup.targets)
        for name, module in backbone_model.named_modules():
            if f".{name}".endswith(ends):
                refuse_quantised_module(name, module)
        with _decomposed_in_fp32():
            return super().attach(backbone_model, setup=setup)

    def load(self, backbone_model: nn.Module, adapter_dir: Path) -> PeftModel:
        with _decomposed_in_fp32():
            return super().load(backbone_model, adapter_dir)

    def param_groups(self, peft_model: PeftModel, *, training: Training) -> list[dict[str, Any]]:
        """One group with its own learning rate: the trained tensors are singular triplets of the weights themselves."""
        (group,) = super().param_groups(peft_model, training=training)
        return [{**group, "lr": training.lr * self.lr_scale}]

    def updates(self, peft_model: PeftModel) -> dict[str, Update]:
        from peft.tuners.osf.layer import OSFLayer

        from hiplora.updates import Dense

        adapter = active_adapter(peft_model)
        modules = peft_model.get_base_model().named_modules()
        layers: dict[str, Any] = {name: module for name, module in modules if isinstance(module, OSFLayer)}
        return {name: Dense(layer.get_delta_weight(adapter).detach().float()) for name, layer in layers.items()}


@contextmanager
def _decomposed_in_fp32() -> Iterator[None]:
    """A context in which PEFT keeps the triplets in fp32: rounded to the weight's dtype they are not orthogonal.

    A folder holds the trained triplets alone, and ``ΔW`` is their difference to a new decomposition on loading. Two
    machines' singular vectors may differ by a rotation, which cancels in the product unless each vector is rounded.
    """
    from peft.tuners.osf import layer

    module: Any = layer
    decompose = module.decompose_weight_matrix

    def in_fp32(weight: Tensor, top_k: int) -> Any:
        return decompose(weight.float(), top_k)

    module.decompose_weight_matrix = in_fp32
    try:
        yield
    finally:
        module.decompose_weight_matrix = decompose
