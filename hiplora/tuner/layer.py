"""One adapted linear layer: ΔW = U diag(φ) Vᵀ + s B A, with B ⟂ U and A ⟂ V kept by ``retract``."""

from __future__ import annotations

import math
from typing import Any, cast

import torch
from torch import Tensor, nn

from hiplora.errors import UserError
from hiplora.spectral.orthogonal import ieee_products
from hiplora.tuner.basis import SingularBasis
from hiplora.tuner.config import HipConfig
from hiplora.tuner.hooks import VARIANT_KWARG_KEYS, LoraLayer, LoraLinear, LoraVariant
from hiplora.tuner.product import AdapterProduct, sample_dropout
from hiplora.tuner.targets import matrix, transposed
from hiplora.updates import LowRank, Principal


class HipVariant(LoraVariant):
    """Routes what PEFT does with a LoRA layer (mixed batches, merging) through the whole update."""

    @staticmethod
    def init(  # type: ignore[override]
        module: HipLinear, adapter_name: str, config: HipConfig, **kwargs: Any
    ) -> None:
        if config.principal:
            zeros = torch.zeros(config.k, device=module.base_weight.device)
            module.lora_phi[adapter_name] = nn.Parameter(zeros)

    @staticmethod
    def forward(  # type: ignore[override]
        module: HipLinear, active_adapter: str, x: Tensor, result: Tensor, **kwargs: Any
    ) -> Tensor:
        return module.adapt(active_adapter, x, result)

    @staticmethod
    def merge_safe(  # type: ignore[override]
        module: HipLinear, active_adapter: str, orig_weight: Tensor
    ) -> Tensor:
        delta = module.get_delta_weight(active_adapter)
        return (orig_weight.to(delta.dtype) + delta).to(orig_weight.dtype)

    @staticmethod
    def merge_unsafe(  # type: ignore[override]
        module: HipLinear, active_adapter: str, orig_weight: Tensor
    ) -> None:
        orig_weight.data += module.get_delta_weight(active_adapter)


class HipLinear(LoraLinear):
    """PEFT's LoRA layer with a principal channel. ``lora_phi`` holds φ (k,), or δ where it is relative."""

    adapter_layer_names = (*LoraLayer.adapter_layer_names, "lora_phi")
    other_param_names = (*LoraLayer.other_param_names, "lora_basis", "hip_config", "nominal_scaling")

    def __init__(
        self,
        base_layer: nn.Module,
        adapter_name: str,
        config: HipConfig,
        r: int = 0,
        lora_alpha: int = 1,
        **kwargs: Any,
    ) -> None:
        nn.Module.__init__(self)
        LoraLayer.__init__(self, base_layer, **kwargs)
        self.fan_in_fan_out = False
        self.is_target_conv_1d_layer = False
        self._active_adapter = adapter_name
        self.lora_phi = nn.ParameterDict()
        self.lora_basis = nn.ModuleDict()
        self.hip_config: dict[str, HipConfig] = {}
        self.nominal_scaling: dict[str, float] = {}
        self._unmerged: Tensor | None = None
        self.update_layer(adapter_name, r, lora_alpha=lora_alpha, config=config, **kwargs)

    @property
    def lora_variants(self) -> dict[tuple[str, ...], type[LoraVariant]]:
        return {("k",): HipVariant}

    def update_layer(  # type: ignore[override]
        self, adapter_name: str, r: int, lora_alpha: int, config: HipConfig, **kwargs: Any
    ) -> None:
        """Add an adapter without a basis; the model attaches one and initialises it afterwards."""
        self.hip_config[adapter_name] = config
        super().update_layer(adapter_name, r, lora_alpha, config, **kwargs)
        self.nominal_scaling[adapter_name] = self.scaling[adapter_name]

    def _move_adapter_to_device_of_base_layer(self, adapter_name: str, device: torch.device | None = None) -> None:
        # PEFT's version also casts to the base layer's dtype, even right after loading, and so would round fp32
        # adapters to bf16. Here the dtype is set once, in HipLoraModel._cast_adapter_dtype.
        target = device or self.base_weight.device
        for parameter in self.trained(adapter_name):
            if parameter.device.type != "meta":
                parameter.data = parameter.data.to(target)

    # ── the update ──────────────────────────────────────────────────────────────────────────────────────

    @property
    def base_weight(self) -> Tensor:
        """The frozen weight W (m, n); a transposed view of a Conv1D's, which is stored as (n, m)."""
        return matrix(self.get_base_layer())

    def factors(self, adapter_name: str) -> tuple[nn.Parameter, nn.Parameter]:
        """The parameters A (r, n) and B (m, r)."""
        A, B = self.lora_A[adapter_name].weight, self.lora_B[adapter_name].weight
        return cast(nn.Parameter, A), cast(nn.Parameter, B)

    def trained(self, adapter_name: str) -> list[nn.Parameter]:
        """A, B and, with a principal channel, φ or δ."""
        phi = [self.lora_phi[adapter_name]] if adapter_name in self.lora_phi else []
        return [*self.factors(adapter_name), *phi]

    def basis(self, adapter_name: str) -> SingularBasis:
        """The basis of an adapter. Raises UserError if none was attached."""
        if adapter_name not in self.lora_basis:
            raise UserError(
                f"the HiP-LoRA adapter {adapter_name!r} has no singular basis; "
                "add it with peft.get_peft_model, PeftModel.add_adapter or PeftModel.from_pretrained."
            )
        return self.lora_basis[adapter_name]  # type: ignore[return-value]

    def strength(self, adapter_name: str) -> float:
        """The factor set by PEFT's scale helpers, which must scale the whole update and not the residual alone."""
        return self.scaling[adapter_name] / self.nominal_scaling[adapter_name]

    def principal_gains(self, adapter_name: str) -> Tensor:
        """φ (k,): the parameter, multiplied by σ if it is relative. Differentiable; fp32 or wider."""
        phi = self.lora_phi[adapter_name]
        phi = phi.to(torch.promote_types(phi.dtype, torch.float32))
        if self.hip_config[adapter_name].parameterization == "relative":
            phi = phi * self.basis(adapter_name).S[: phi.numel()].to(phi.dtype)
        return phi

    def update(self, adapter_name: str) -> LowRank | Principal:
        """ΔW (m, n) in factors: detached, fp32, scaling folded into B; U and V are views of the basis."""
        with torch.no_grad():
            A, B = (factor.detach().float() for factor in self.factors(adapter_name))
            residual = LowRank(B * self.scaling[adapter_name], A.clone())  # further training leaves it as it is
            if adapter_name not in self.lora_phi:
                return residual
            phi = self.principal_gains(adapter_name).detach().float() * self.strength(adapter_name)
            basis, k = self.basis(adapter_name), phi.numel()
            return Principal(basis.U[:, :k], phi, basis.V[:, :k], residual)

    def get_delta_weight(self, adapter: str) -> Tensor:
        """ΔW in fp32 in the layout of the stored weight: (m, n), or (n, m) for a Conv1D. Training never forms it."""
        delta = self.update(adapter).dense()
        return delta.mT if transposed(self.get_base_layer()) else delta

    # ── forward ─────────────────────────────────────────────────────────────────────────────────────────

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Base output plus ΔW x of every active adapter, in the base output's dtype."""
        if self._disable_adapters or self.merged_adapters or kwargs.get("adapter_names") is not None:
            return super().forward(x, *args, **kwargs)
        for name in ("adapter_names", *VARIANT_KWARG_KEYS):
            kwargs.pop(name, None)
        result = self.base_layer(x, *args, **kwargs)
        for adapter in self.active_adapters:
            if adapter in self.lora_A:
                result = self.adapt(adapter, x, result)
        return result

    def adapt(self, adapter_name: str, x: Tensor, result: Tensor) -> Tensor:
        """result (…, m) + ΔW x for x (…, n), computed in result's dtype.

        The parameters keep their own dtype (fp32 by default) and get gradients in it, as under autocast.
        """
        phi, directions = None, None
        scale = self.scaling[adapter_name]
        if adapter_name in self.lora_phi:
            phi = self.principal_gains(adapter_name)
            if (strength := self.strength(adapter_name)) != 1.0:
                phi = phi * strength
            directions = self.basis(adapter_name).directions(phi.numel(), result.dtype)
        dropout = self.lora_dropout[adapter_name]
        p = dropout.p if isinstance(dropout, nn.Dropout) and dropout.training else 0.0
        x = x.to(result.dtype)
        mask, gain = sample_dropout(x, p)
        A, B = self.factors(adapter_name)
        return AdapterProduct.apply(result, x, phi, A, B, directions, float(scale) * gain, mask)

    # ── start and retraction ────────────────────────────────────────────────────────────────────────────

    @torch.no_grad()
    def initialise(self, adapter_name: str) -> None:
        """Project the drawn factors, and set φ = −σ with ``zero_init`` (it is 0 otherwise).

        With ``side="inside"``, multiply A by √(n / k): the projection onto k of n directions has shrunk it by about
        the inverse.
        """
        config = self.hip_config[adapter_name]
        self.retract(adapter_name)
        if config.side == "inside":
            A, _ = self.factors(adapter_name)
            A.mul_(math.sqrt(A.shape[1] / config.k))
        if adapter_name in self.lora_phi and config.zero_init:
            phi = self.lora_phi[adapter_name]
            relative = config.parameterization == "relative"
            phi.copy_(-torch.ones_like(phi) if relative else -self.basis(adapter_name).S[: phi.numel()])

    @torch.no_grad()
    @ieee_products()
    def retract(self, adapter_name: str) -> None:
        """B ← B − U (Uᵀ B) and A ← A − (A V) Vᵀ, computed in fp32 and rounded once.

        With ``side="inside"``, B ← U (Uᵀ B) and A ← (A V) Vᵀ. With ``project_residual=False``, nothing.
        """
        config = self.hip_config[adapter_name]
        if not config.project_residual:
            return
        basis = self.basis(adapter_name)
        U, V = basis.U[:, : config.k], basis.V[:, : config.k]
        A, B = self.factors(adapter_name)
        wide_A, wide_B = A.float(), B.float()
        if config.side == "inside":
            A.copy_((wide_A @ V) @ V.mT)
            B.copy_(U @ (U.mT @ wide_B))
            return
        A.copy_(torch.addmm(wide_A, wide_A @ V, V.mT, alpha=-1))
        B.copy_(torch.addmm(wide_B, U, U.mT @ wide_B, alpha=-1))

    # ── merging ─────────────────────────────────────────────────────────────────────────────────────────

    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:
        """PEFT's merge, which also keeps a copy of the weight: subtracting ΔW again in bf16 would lose bits."""
        first = not self.merged_adapters
        if first:
            self._unmerged = self.base_weight.detach().clone()
        try:
            super().merge(safe_merge=safe_merge, adapter_names=adapter_names)
        finally:
            if not self.merged_adapters:
                self._unmerged = None

    def unmerge(self) -> None:
        """Restore the weight bit by bit."""
        if self._unmerged is None:
            super().unmerge()
            return
        self.base_weight.data.copy_(self._unmerged)
        self.merged_adapters.clear()
        self._unmerged = None
