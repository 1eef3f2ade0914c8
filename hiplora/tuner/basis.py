"""The frozen basis of one layer: its leading singular directions, or random ones as a control."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from hiplora.spectral.angles import sketch
from hiplora.spectral.cache import load_or_compute
from hiplora.spectral.drawn import random_bases
from hiplora.spectral.recipes import Basis
from hiplora.tuner.config import HipConfig


class SingularBasis(nn.Module):
    """U (m, K), S (K,) and V (n, K) as buffers outside the state dict, in fp32 whatever the model is cast to.

    An adapter with k ≤ K uses the first k columns. S_i is u_iᵀ W v_i, which is σ_i for singular directions.
    ``options`` determine U and V, and ``key`` identifies the computation. Adapters with equal options share one
    object.
    """

    U: Tensor
    S: Tensor
    V: Tensor

    def __init__(self, basis: Basis, *, options: dict[str, Any], key: str | None, device: torch.device) -> None:
        super().__init__()
        for name, part in (("U", basis.U), ("S", basis.S), ("V", basis.V)):
            self.register_buffer(name, part.detach().to(device, torch.float32), persistent=False)
        self.options = options
        self.key = key
        self._casts: dict[tuple[int, torch.dtype, torch.device], tuple[Tensor, Tensor]] = {}

    @property
    def size(self) -> int:
        """K, the number of directions kept."""
        return self.S.numel()

    def directions(self, k: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """(Vᵀ (k, n), U (m, k)) in the dtype of the forward pass, cast once."""
        key = (k, dtype, self.V.device)  # replicas on several devices share this dictionary
        if key not in self._casts:
            self._casts[key] = (self.V[:, :k].mT.to(dtype), self.U[:, :k].to(dtype))
        return self._casts[key]

    def sketch(self, k: int) -> Tensor:
        """(2, k) fp32 on the CPU: a checksum of the first k directions that tolerates rounding."""
        return torch.stack(sketch(Basis(self.U, self.S, self.V, 0.0), k))

    def same_directions(self, other: SingularBasis) -> bool:
        """Whether the two agree, bit by bit, on the directions that both hold."""
        k = min(self.size, other.size)
        pairs = ((self.U, other.U), (self.V, other.V))
        return all(a is b or torch.equal(a[:, :k], b[:, :k].to(a.device)) for a, b in pairs)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> SingularBasis:
        # Follow the model to its device, not to its dtype: rounded to bf16, U Uᵀ is no longer a projection.
        device = fn(self.S.new_empty(0)).device
        for name, part in list(self._buffers.items()):
            if part is not None:
                self._buffers[name] = part.to(device)
        self._casts = {}
        return self

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_casts": {}}


def found_bases(weights: Mapping[str, Tensor], config: HipConfig) -> dict[str, SingularBasis]:
    """The basis of every weight (m, n) for a configuration: read from the SVD cache, computed, or drawn."""
    if config.basis == "random":
        bases = random_bases(weights, k=config.k, seed=config.basis_seed)
        key = f"random-{config.basis_seed}-{config.k}"
    else:
        found = load_or_compute(weights, **config.svd_options, cache_dir=config.cache_dir)
        bases, key = found.bases, found.key
    options = config.basis_options
    return {
        name: SingularBasis(bases[name], options=options, key=key, device=weight.device)
        for name, weight in weights.items()
    }
