"""The frozen singular basis of one layer, shared by all its adapters."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from hiplora.spectral.angles import sketch
from hiplora.spectral.recipes import Basis


class SingularBasis(nn.Module):
    """U (m, K), S (K,) and V (n, K) as buffers outside the state dict, fp32 whatever the model is cast to.

    An adapter with k ≤ K uses the first k columns. ``options`` are the SVD settings and ``key`` the identity
    of the computation; adapters whose settings agree share one object.
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
        self._casts: dict[tuple[int, torch.dtype], tuple[Tensor, Tensor]] = {}

    @property
    def size(self) -> int:
        """K, the number of directions kept."""
        return self.S.numel()

    def directions(self, k: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """(Vᵀ (k, n), U (m, k)) in the dtype of the forward pass, cast once."""
        if (k, dtype) not in self._casts:
            self._casts[k, dtype] = (self.V[:, :k].mT.to(dtype), self.U[:, :k].to(dtype))
        return self._casts[k, dtype]

    def sketch(self, k: int) -> Tensor:
        """(2, k) fp32 on the CPU: a checksum of the first k directions that tolerates rounding."""
        return torch.stack(sketch(Basis(self.U, self.S, self.V, 0.0), k))

    def same_directions(self, other: SingularBasis) -> bool:
        """Whether the two agree, bit by bit, on the directions that both hold."""
        k = min(self.size, other.size)
        pairs = ((self.U, other.U), (self.V, other.V))
        return all(a is b or torch.equal(a[:, :k], b[:, :k].to(a.device)) for a, b in pairs)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> SingularBasis:
        # Follow the model to its device, never to its dtype: a projection in bf16 would not be one.
        device = fn(self.S.new_empty(0)).device
        for name, part in list(self._buffers.items()):
            if part is not None:
                self._buffers[name] = part.to(device)
        self._casts = {}
        return self

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_casts": {}}
