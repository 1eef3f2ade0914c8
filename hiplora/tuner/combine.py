"""Exact weighted sums of adapters of one model: φ adds, residual factors concatenate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch

from hiplora.errors import UserError
from hiplora.tuner.config import HipConfig
from hiplora.tuner.layer import HipLinear
from hiplora.updates import LowRank, Principal


def combined_config(configs: Sequence[HipConfig], *, target_modules: set[str] | str) -> HipConfig:
    """Options of the sum: rank Σ_t r_t with scaling 1, absolute φ, and a k that keeps every φ and residual.

    Further training projects the sum's residual only if that leaves all summands as they are. It does not where an
    adapter's residual was kept out of fewer directions than the sum's φ has.

    Raises:
        UserError: the adapters differ in ``side``, so that training the sum further would project one side away; or
            their ranks add up to more than the k directions that ``side="inside"`` confines them to.
    """
    if len({config.side for config in configs}) > 1:
        raise UserError(
            "the adapters have different sides (side=inside and side=outside), so their sum would have neither; use "
            "hiplora.export_lora and merge the exported LoRAs."
        )
    rank = sum(max([config.r, *(config.rank_pattern or {}).values()]) for config in configs)
    inside = configs[0].side == "inside"
    gains = [config.k for config in configs if config.principal]
    sizes = [config.k for config in configs]
    k = max(gains or sizes) if gains or inside else min(sizes)
    if inside and rank > k:
        raise UserError(
            f"the ranks of the adapters add up to {rank}, more than the k={k} directions that side=inside confines "
            "them to; use hiplora.export_lora and merge the exported LoRAs."
        )
    return replace(
        max(configs, key=lambda config: config.k),
        r=rank,
        k=k,
        lora_alpha=rank,
        target_modules=target_modules,  # type: ignore[arg-type]
        principal=any(config.principal for config in configs),
        project_residual=all(config.project_residual for config in configs) and (inside or k <= min(sizes)),
        rank_pattern={},
        alpha_pattern={},
        use_rslora=False,
        parameterization="absolute",
        zero_init=False,
        init_lora_weights=True,
    )


def check_factors_alone(configs: Mapping[str, HipConfig]) -> None:
    """Refuse adapters (configurations by name) that trained more than φ, A and B. Raises UserError."""
    for adapter, config in configs.items():
        for option in ("modules_to_save", "trainable_token_indices"):
            if getattr(config, option):
                raise UserError(
                    f"the adapter {adapter!r} has {option}, which add_weighted_adapter would leave out; save the "
                    "adapters and merge their folders with hiplora-merge, or the LoRAs that hiplora.export_lora writes."
                )


def check_one_basis(layers: Mapping[str, HipLinear], adapters: Sequence[str]) -> None:
    """Refuse adapters whose φ belong to different directions. Raises UserError."""
    for name, layer in layers.items():
        first, *others = [layer.basis(adapter) for adapter in adapters if adapter in layer.lora_A]
        if not all(first.same_directions(other) for other in others):
            raise UserError(
                f"the adapters have different singular bases at {name}, so their φ cannot be added; train "
                "them with the same svd_* options, or use hiplora.export_lora and merge the exported LoRAs."
            )


@torch.no_grad()
def combine(layer: HipLinear, *, adapters: Sequence[str], weights: Sequence[float], target: str) -> None:
    """Write Σ_t weight_t ΔW_t into ``target``, a new adapter of rank ≥ Σ_t r_t with scaling 1 and absolute φ = 0."""
    A, B = layer.factors(target)
    A.zero_()
    B.zero_()
    start = 0
    for adapter, weight in zip(adapters, weights, strict=True):
        if adapter not in layer.lora_A:
            continue
        update = layer.update(adapter).scaled(weight)
        if isinstance(update, Principal):
            layer.lora_phi[target][: update.phi.numel()] += update.phi
        residual = update if isinstance(update, LowRank) else update.residual
        if residual is not None:
            columns = slice(start, start + residual.rank)
            A[columns], B[:, columns] = residual.A, residual.B
            start += residual.rank
