"""PEFT's LoRA tuner with a principal channel: basis, penalty, retraction, update."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NoReturn, cast

import torch
from torch import Tensor, nn

from hiplora.errors import UserError
from hiplora.tuner.basis import SingularBasis, found_bases
from hiplora.tuner.combine import check_factors_alone, check_one_basis, combine, combined_config
from hiplora.tuner.config import HipConfig
from hiplora.tuner.hooks import DUMMY_TARGET_MODULES, LoraModel, _freeze_adapter, _maybe_include_all_linear_layers
from hiplora.tuner.identity import (
    IDENTITY,
    PREFIX,
    carried_bases,
    check_saved,
    common_key,
    describe,
    match_saved,
    phi_name,
    reusable,
)
from hiplora.tuner.layer import HipLinear
from hiplora.tuner.targets import base_of, find_targets, is_linear, weights_of
from hiplora.updates import Update


def adapted_layers(model: nn.Module, adapter_name: str) -> dict[str, HipLinear]:
    """The layers that hold the adapter, by their name in the backbone."""
    return {
        name.removeprefix(PREFIX): module
        for name, module in model.named_modules()
        if isinstance(module, HipLinear) and adapter_name in module.lora_A
    }


class HipLoraModel(LoraModel):
    """The tuner behind ``get_peft_model(model, HipLoraConfig(...))``; a PeftModel forwards to its methods."""

    def __init__(self, model: nn.Module, peft_config: Any, *args: Any, **kwargs: Any) -> None:
        # A PeftModel passes a dictionary. transformers passes a configuration that PeftConfig.from_pretrained has read,
        # and then loads the tensors itself, without renaming δ and without check_saved.
        if isinstance(peft_config, HipConfig) and peft_config._saved and peft_config._source is None:
            raise UserError(
                "transformers' load_adapter and AutoModel.from_pretrained cannot load a saved HiP-LoRA adapter: they "
                "would lose φ, or skip the check of the backbone; load the backbone, then call "
                "peft.PeftModel.from_pretrained(backbone, folder)."
            )
        super().__init__(model, peft_config, *args, **kwargs)

    # ── what training needs ─────────────────────────────────────────────────────────────────────────────

    def stability_penalty(self) -> Tensor:
        """R = λ Σ_matrices Σ_i w_i φ_i² of the active adapters, w_i = σ_i^γ / mean_j σ_j^γ; fp32 scalar.

        λ is included. R is 0 without a principal channel. It penalises φ under either parameterisation.
        """
        total = torch.zeros((), device=next(self.parameters()).device)
        for adapter in self.active_adapters:
            config = self._hip_config(adapter)
            layers = [m for m in adapted_layers(self.model, adapter).values() if adapter in m.lora_phi]
            if not layers or config.stability == 0:
                continue
            phi = torch.stack([layer.principal_gains(adapter).to(total.device) for layer in layers])
            sigma = torch.stack([layer.basis(adapter).S[: config.k].to(total.device) for layer in layers])
            powers = sigma**config.gamma
            # Without the clamp, the penalty of an all-zero weight would be NaN instead of 0.
            weights = powers / powers.mean(dim=1, keepdim=True).clamp_min(torch.finfo(powers.dtype).tiny)
            total = total + config.stability * (weights * phi**2).sum().float()
        return total

    def retract(self) -> None:
        """B ← (I − UUᵀ) B and A ← A (I − VVᵀ) of the active adapters; call it after every optimizer step.

        For an adapter with ``side="inside"``, B ← UUᵀ B and A ← A VVᵀ.
        """
        for adapter in self.active_adapters:
            for layer in adapted_layers(self.model, adapter).values():
                layer.retract(adapter)

    def updates(self, adapter_name: str = "default") -> dict[str, Update]:
        """ΔW (m, n) in factors of every adapted matrix, by its name in the backbone: fp32.

        φ, A and B are copies, which further training leaves as they are; U and V are views of the basis.

        Raises:
            UserError: the model has no adapter of this name.
        """
        self._hip_config(adapter_name)
        layers = adapted_layers(self.model, adapter_name)
        return {name: layer.update(adapter_name) for name, layer in layers.items()}

    def principal_parameters(self) -> list[nn.Parameter]:
        """φ (or δ) of the active adapters, one (k,) parameter per matrix; empty for Proj-LoRA."""
        return [
            layer.lora_phi[adapter]
            for adapter in self.active_adapters
            for layer in adapted_layers(self.model, adapter).values()
            if adapter in layer.lora_phi
        ]

    def param_groups(self, *, lr: float, **options: Any) -> list[dict[str, Any]]:
        """An optimizer's parameter groups: every φ (or δ) with ``lr_scale`` times the learning rate of the rest.

        The groups hold all trainable parameters: first those without φ, then the φ of the active adapters, in one group
        for each ``lr_scale``. ``options``, such as ``weight_decay``, apply to all groups.
        """
        channel: dict[float, list[nn.Parameter]] = {}
        for adapter in self.active_adapters:
            for layer in adapted_layers(self.model, adapter).values():
                if adapter in layer.lora_phi and layer.lora_phi[adapter].requires_grad:
                    channel.setdefault(self._hip_config(adapter).lr_scale, []).append(layer.lora_phi[adapter])
        apart = {id(phi) for gains in channel.values() for phi in gains}
        rest = [p for p in self.parameters() if p.requires_grad and id(p) not in apart]
        scaled = [{"params": gains, "lr": lr * scale, **options} for scale, gains in channel.items()]
        return [{"params": rest, "lr": lr, **options}, *scaled]

    def _hip_config(self, adapter_name: str) -> HipConfig:
        if adapter_name not in self.peft_config:
            known = ", ".join(self.peft_config)
            raise UserError(f"there is no adapter {adapter_name!r} in this model; it has {known}.")
        return cast(HipConfig, self.peft_config[adapter_name])

    # ── adding an adapter ───────────────────────────────────────────────────────────────────────────────

    def inject_adapter(
        self,
        model: nn.Module,
        adapter_name: str,
        autocast_adapter_dtype: bool = True,
        low_cpu_mem_usage: bool = False,
        state_dict: dict[str, Tensor] | None = None,
    ) -> None:
        """PEFT's injection; the targets are checked and the bases found first, so that a refusal changes nothing."""
        config = self.peft_config[adapter_name]
        if not isinstance(config, HipConfig):
            raise UserError(f"a HiP-LoRA model takes HipLoraConfig adapters, not {type(config).__name__}.")
        bases: dict[str, SingularBasis] = {}
        config = cast(HipConfig, self._prepare_adapter_config(config, self.get_model_config(model)))
        if config.target_modules != DUMMY_TARGET_MODULES:
            _maybe_include_all_linear_layers(config, model)  # replaces the shorthand in place
            bases = self._bases(find_targets(model, config, state_dict), config)
        super().inject_adapter(model, adapter_name, autocast_adapter_dtype, low_cpu_mem_usage, state_dict)
        config.svd_key = common_key(bases)
        for name, layer in adapted_layers(model, adapter_name).items():
            layer.lora_basis[adapter_name] = bases[name]
            if layer.factors(adapter_name)[0].device.type != "meta":
                layer.initialise(adapter_name)

    def _bases(self, targets: Mapping[str, nn.Module], config: HipConfig) -> dict[str, SingularBasis]:
        """One basis per target: the one saved with this adapter, another adapter's, or one found for the weights.

        Another adapter's has to match what is saved of this one: with equal options, directions that a folder carries
        may differ from those computed here.
        """
        shared = {name: _existing(module, config) for name, module in targets.items()}
        ready = {name: basis for name, basis in shared.items() if basis is not None}
        complete = len(ready) == len(targets) and (common_key(ready) is not None or not ready)
        merged = next((n for n, m in targets.items() if isinstance(m, HipLinear) and m.merged), None)
        weights = weights_of(targets)
        bases = None if merged else carried_bases(weights, config)
        if bases is None and complete and match_saved(ready, config):
            return ready
        if merged:
            raise UserError(
                f"{merged} has an adapter merged into its weight, which has other singular directions than the "
                "backbone's; call unmerge_adapter() before adding an adapter."
            )
        if bases is None:
            bases = found_bases(weights, config)
        for name, basis in ready.items():
            if basis.size >= bases[name].size and basis.same_directions(bases[name]):
                bases[name] = basis
        return bases

    @staticmethod
    def _create_new_module(  # type: ignore[override]
        lora_config: HipConfig, adapter_name: str, target: nn.Module, **kwargs: Any
    ) -> HipLinear:
        base = base_of(target)
        if not is_linear(base):  # ensure_weight_tying passes the embedding that is tied to a target
            raise UserError(
                f"HiP-LoRA adapts linear layers only, not {type(base).__name__}; "
                "leave ensure_weight_tying out or choose other target_modules."
            )
        kwargs.pop("device_map", None)
        return HipLinear(target, adapter_name, config=lora_config, **kwargs)

    def _cast_adapter_dtype(self, adapter_name: str, autocast_adapter_dtype: bool = True) -> None:
        """fp32 adapters by default, as in PEFT; the weight's dtype with ``autocast_adapter_dtype=False``."""
        super()._cast_adapter_dtype(adapter_name, autocast_adapter_dtype)
        if autocast_adapter_dtype:
            return
        for layer in adapted_layers(self.model, adapter_name).values():
            for parameter in layer.trained(adapter_name):
                parameter.data = parameter.data.to(layer.base_weight.dtype)

    # ── saving and loading ──────────────────────────────────────────────────────────────────────────────

    @classmethod
    def _get_adapter_state_dict(  # type: ignore[override]
        cls,
        model: nn.Module,
        config: HipConfig,
        adapter_name: str,
        state_dict: dict[str, Tensor],
        unwanted_adapter_names: list[str],
    ) -> dict[str, Tensor]:
        tensors = super()._get_adapter_state_dict(model, config, adapter_name, state_dict, unwanted_adapter_names)
        phi = f".lora_phi.{adapter_name}"
        tensors = {
            key.removesuffix(phi) + f".{phi_name(config)}.{adapter_name}" if key.endswith(phi) else key: value
            for key, value in tensors.items()
        }
        for name, module in model.named_modules():
            if isinstance(module, HipLinear) and adapter_name in module.lora_A:
                identity = describe(module.basis(adapter_name), config)
                tensors |= {f"{name}.{part}.{adapter_name}": value for part, value in identity.items()}
        return tensors

    @classmethod
    def _remap_adapter_state_dict_for_load(  # type: ignore[override]
        cls, model: nn.Module, config: HipConfig, adapter_name: str, state_dict: dict[str, Tensor]
    ) -> dict[str, Tensor]:
        """Check the saved identity against the model's basis, then hand φ, A and B to PEFT."""
        layers = adapted_layers(model, adapter_name)
        check_saved({name: m.basis(adapter_name) for name, m in layers.items()}, state_dict, config)
        phi, trained = f".{phi_name(config)}", {}
        for key, value in state_dict.items():
            if key.rpartition(".")[2] not in IDENTITY:
                trained[key.removesuffix(phi) + ".lora_phi" if key.endswith(phi) else key] = value
        return super()._remap_adapter_state_dict_for_load(model, config, adapter_name, trained)

    @classmethod
    def _convert_state_dict_for_initial_model(cls, *args: Any, **kwargs: Any) -> NoReturn:
        raise UserError(
            "path_initial_model_for_weight_conversion does not apply to HiP-LoRA, which leaves the "
            "backbone's weights as they are; use hiplora.export_lora to write a LoRA."
        )

    def subtract_mutated_init(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Refused: PEFT's version would subtract A and B and lose φ."""
        self._convert_state_dict_for_initial_model()

    # ── combining adapters ──────────────────────────────────────────────────────────────────────────────

    def add_weighted_adapter(  # type: ignore[override]
        self,
        adapters: list[str],
        weights: list[float],
        adapter_name: str,
        combination_type: str = "cat",
        **options: Any,
    ) -> None:
        """Add the adapter Σ_t weight_t ΔW_t, exactly: φ adds, residuals concatenate to rank Σ_t r_t.

        ``linear`` and ``cat`` are the same here. The adapters must share their singular bases; k may differ, but then
        further training may not project the sum's residual (``project_residual``), which would change the sum.
        Raises UserError for PEFT's other types, which work on A and B alone or truncate, and lose φ, and for adapters
        with ``modules_to_save`` or ``trainable_token_indices``, which the sum would lack.
        """
        if combination_type not in ("linear", "cat") or options:
            what = ", ".join(options) or f"combination_type={combination_type!r}"
            raise UserError(
                f"add_weighted_adapter with {what} would lose φ; use combination_type='cat' (exact), or "
                "hiplora.export_lora and merge the exported LoRAs."
            )
        if adapter_name in self.peft_config:
            raise UserError(f"an adapter {adapter_name!r} exists already; choose another name.")
        if len(adapters) != len(weights):
            raise UserError(f"{len(adapters)} adapters need as many weights, not {len(weights)}.")
        configs = [self._hip_config(adapter) for adapter in adapters]
        check_factors_alone(dict(zip(adapters, configs, strict=True)))
        _, _, targets = self._check_add_weighted_adapter(adapters, "cat", None)
        for adapter in adapters:
            check_one_basis(adapted_layers(self.model, adapter), adapters)
        self.peft_config[adapter_name] = combined_config(configs, target_modules=targets)
        try:
            self.inject_adapter(self.model, adapter_name)
        except BaseException:
            del self.peft_config[adapter_name]
            raise
        _freeze_adapter(self.model, adapter_name)
        for layer in adapted_layers(self.model, adapter_name).values():
            combine(layer, adapters=adapters, weights=weights, target=adapter_name)


def _existing(module: nn.Module, config: HipConfig) -> SingularBasis | None:
    """The basis of another adapter of this module that this configuration can use, else None."""
    if not isinstance(module, HipLinear):
        return None
    bases = (module.basis(adapter) for adapter in module.lora_basis)
    return next((basis for basis in bases if reusable(basis, config)), None)
