"""The adapter's product with its input, and the gradients, in as few passes over memory as possible."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

_LEVELS = 1 << 16  # a dropout probability is rounded to a multiple of 2⁻¹⁶ on the CPU


class Dropout(NamedTuple):
    """Inverted dropout as its two factors: ``mask`` of zeros and ones (None for p = 0) and the gain 1 / (1 − p)."""

    mask: Tensor | None
    gain: float


class _Computed(NamedTuple):
    """The positions (N,) of a micro-batch that are computed, out of all ``total`` positions of its padded rows."""

    places: Tensor
    total: int


_COMPUTED: ContextVar[_Computed | None] = ContextVar("computed", default=None)


@contextmanager
def drawn_for_all(places: Tensor, total: int) -> Iterator[None]:
    """A context in which a CPU mask (…, N, n) is drawn for all ``total`` positions, then reduced to ``places`` (N,).

    So a seed drops the same entries whether padding and repeated prefixes are computed or left out.
    """
    token = _COMPUTED.set(_Computed(places, total))
    try:
        yield
    finally:
        _COMPUTED.reset(token)


def sample_dropout(x: Tensor, p: float) -> Dropout:
    """A mask of x's shape and dtype and its gain, drawn from the device's default generator.

    On the CPU one 64-bit draw serves four entries. That is five to ten times faster than ``bernoulli_``, which
    would be the most expensive part of a LoRA layer there.
    """
    if p == 0.0:
        return Dropout(None, 1.0)
    if x.device.type != "cpu":
        return Dropout(torch.empty_like(x).bernoulli_(1.0 - p), 1.0 / (1.0 - p))
    dropped = min(round(p * _LEVELS), _LEVELS - 1)  # p < 1, so at least one level is kept
    computed, width = _COMPUTED.get(), x.shape[-1]
    if computed is not None and x.numel() != len(computed.places) * width:
        computed = None  # a layer that gets only some of these positions, such as an adapted head
    count = x.numel() if computed is None else computed.total * width
    draws = torch.empty((count + 3) // 4, dtype=torch.int64).random_(-(1 << 63), None)
    levels = draws.view(torch.int16)[:count].view(-1, width)
    levels = (levels if computed is None else levels[computed.places]).view(x.shape)
    mask = torch.empty(x.shape, dtype=x.dtype)
    torch.ge(levels, dropped - _LEVELS // 2, out=mask)
    return Dropout(mask, _LEVELS / (_LEVELS - dropped))


class AdapterProduct(torch.autograd.Function):
    """base + [x V ⊙ φ | s (x ⊙ mask) Aᵀ] [U | B]ᵀ for base (…, m), x (…, n), one dtype.

    ``directions`` is (Vᵀ (k, n), U (m, k)) in that dtype, or None without a principal channel; A (r, n),
    B (m, r) and φ (k,) may have a wider one. Both paths share one product from k + r to m in forward, one from m to
    k + r in backward and, without dropout, the one from n to k + r. Per token, autograd keeps k + r numbers and the
    mask, besides x, which the base model keeps anyway.
    """

    @staticmethod
    def forward(
        ctx: Any,
        base: Tensor,
        x: Tensor,
        phi: Tensor | None,
        A: Tensor,
        B: Tensor,
        directions: tuple[Tensor, Tensor] | None,
        scale: float,
        mask: Tensor | None,
    ) -> Tensor:
        rows = x.reshape(-1, x.shape[-1])
        flat_mask = None if mask is None else mask.reshape(-1, x.shape[-1])
        dtype = base.dtype
        down, up, gain = A.to(dtype), B.to(dtype), None
        k = 0
        if directions is not None and phi is not None:
            k = phi.numel()
            down = torch.cat([directions[0], down])
            up = torch.cat([directions[1], up], dim=1)
            wide = torch.promote_types(dtype, torch.float32)  # a gain rounded to bf16 would be off by up to 0.4 %
            gain = torch.cat([phi.to(wide), torch.full((A.shape[0],), scale, dtype=wide, device=phi.device)])
        if flat_mask is None:
            hidden = rows @ down.mT
        elif k == 0:
            hidden = (rows * flat_mask) @ down.mT
        else:
            hidden = torch.cat([rows @ down[:k].mT, (rows * flat_mask) @ down[k:].mT], dim=1)
        scaled = (hidden * (scale if gain is None else gain)).to(dtype)
        ctx.save_for_backward(rows, flat_mask, hidden, down, up, gain)
        ctx.k, ctx.scale, ctx.shape = k, scale, x.shape
        ctx.dtypes = (None if phi is None else phi.dtype, A.dtype, B.dtype)
        flat = base.reshape(-1, base.shape[-1])
        return torch.addmm(flat, scaled, up.mT).view(base.shape)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        rows, mask, hidden, down, up, gain = ctx.saved_tensors
        k, scale = ctx.k, ctx.scale
        _, needs_x, needs_phi, needs_A, needs_B, *_ = ctx.needs_input_grad
        flat = grad.reshape(-1, grad.shape[-1])
        back = flat @ up  # (T, k + r)
        scaled = (back * (scale if gain is None else gain)).to(back.dtype)
        grad_x = grad_phi = grad_A = grad_B = None
        if needs_phi:
            wide = torch.promote_types(hidden.dtype, torch.float32)
            grad_phi = (hidden[:, :k].to(wide) * back[:, :k]).sum(dim=0).to(ctx.dtypes[0])
        if needs_B:
            grad_B = (hidden[:, k:].mT @ flat).mT.to(ctx.dtypes[2]) * scale
        if needs_A:
            dropped = rows if mask is None else rows * mask
            grad_A = (scaled[:, k:].mT @ dropped).to(ctx.dtypes[1])
        if needs_x:
            grad_x = _input_gradient(scaled, down, k=k, mask=mask).view(ctx.shape)
        return grad, grad_x, grad_phi, grad_A, grad_B, None, None, None


def _input_gradient(scaled: Tensor, down: Tensor, *, k: int, mask: Tensor | None) -> Tensor:
    """The gradient of x, (T, n): the part through Vᵀ plus the masked part through A."""
    if mask is None:
        return scaled @ down
    residual = (scaled[:, k:] @ down[k:]).mul_(mask)
    return residual if k == 0 else residual.addmm_(scaled[:, :k], down[:k])
