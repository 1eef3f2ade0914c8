"""The fused product against the formula written out, in fp64."""

from __future__ import annotations

import pytest
import torch

from hiplora.tuner.product import AdapterProduct, sample_dropout

M, N, K, R, SCALE = 5, 7, 3, 2, 1.7


def inputs(*, masked: bool, dtype=torch.float64):
    g = torch.Generator().manual_seed(0)
    draw = lambda *shape: torch.randn(*shape, generator=g, dtype=torch.float64).to(dtype)  # noqa: E731
    tensors = {"base": draw(2, 4, M), "x": draw(2, 4, N), "phi": draw(K), "A": draw(R, N), "B": draw(M, R)}
    for tensor in tensors.values():
        tensor.requires_grad_()
    mask = (torch.rand(2, 4, N, generator=g) > 0.3).to(dtype) if masked else None
    return tensors, (draw(K, N), draw(M, K)), mask


def written_out(t, directions, mask, *, principal: bool):
    Vt, U = directions
    dropped = t["x"] if mask is None else t["x"] * mask
    out = t["base"] + SCALE * (dropped @ t["A"].T) @ t["B"].T
    return out + (t["x"] @ Vt.T * t["phi"]) @ U.T if principal else out


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("principal", [False, True])
def test_value_and_gradients_are_those_of_the_formula(masked, principal):
    t, directions, mask = inputs(masked=masked)
    phi = t["phi"] if principal else None
    args = (t["base"], t["x"], phi, t["A"], t["B"], directions if principal else None, SCALE, mask)
    ours, reference = AdapterProduct.apply(*args), written_out(t, directions, mask, principal=principal)
    torch.testing.assert_close(ours, reference)
    wanted = [tensor for name, tensor in t.items() if principal or name != "phi"]
    cotangent = torch.randn_like(ours)
    for got, expected in zip(
        torch.autograd.grad(ours, wanted, cotangent),
        torch.autograd.grad(reference, wanted, cotangent),
        strict=True,
    ):
        torch.testing.assert_close(got, expected)
    assert torch.autograd.gradcheck(AdapterProduct.apply, args)


def test_bf16_activations_give_fp32_gradients_to_fp32_parameters():
    t, directions, mask = inputs(masked=True, dtype=torch.float32)
    reference = written_out(t, directions, mask, principal=True)
    narrow = [part.to(torch.bfloat16) for part in (t["base"], t["x"], *directions, mask)]
    base, x, Vt, U, mask16 = narrow
    ours = AdapterProduct.apply(base, x, t["phi"], t["A"], t["B"], (Vt, U), SCALE, mask16)
    assert ours.dtype == torch.bfloat16
    torch.testing.assert_close(ours.float(), reference, rtol=0.05, atol=0.15)
    names = ("phi", "A", "B")
    got = torch.autograd.grad(ours.float().sum(), [t[n] for n in names])
    expected = torch.autograd.grad(reference.sum(), [t[n] for n in names])
    for a, b in zip(got, expected, strict=True):
        assert a.dtype == torch.float32
        assert (a - b).norm() < 0.02 * b.norm()


def test_bf16_leaves_the_scale_and_the_gains_unrounded():
    one, x, scale = torch.ones(1, 1), torch.full((1, 1), 5.0, dtype=torch.bfloat16), 2.10527  # 2.109375 in bf16
    base, directions = torch.zeros_like(x), (one.bfloat16(), one.bfloat16())
    residual = AdapterProduct.apply(base, x, torch.zeros(1), one, one, directions, scale, None)
    principal = AdapterProduct.apply(base, x, torch.full((1,), scale), one, 0 * one, directions, 1.0, None)
    assert residual.item() == principal.item() == 10.5  # from the rounded one it would be 10.5625


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_dropout_is_unbiased_independent_and_reproducible(dtype):
    x, p = torch.zeros(401, 1003, dtype=dtype), 0.05
    torch.manual_seed(5)
    mask, gain = sample_dropout(x, p)
    torch.manual_seed(5)
    assert torch.equal(mask, sample_dropout(x, p).mask)
    assert mask.dtype == dtype
    assert set(mask.unique().tolist()) == {0.0, 1.0}
    wide = mask.float()
    four_sigma = 4 * (p * (1 - p) / x.numel()) ** 0.5
    assert wide.mean().item() == pytest.approx(1 - p, abs=four_sigma)
    assert gain * (1 - p) == pytest.approx(1.0, abs=1e-4)
    for lag in (1, 2, 3, 4):  # four entries share one draw of the generator
        pairs = (1 - wide.flatten()[lag:]) * (1 - wide.flatten()[:-lag])
        assert pairs.mean().item() == pytest.approx(p * p, rel=0.15)
    assert sample_dropout(x, 0.0) == (None, 1.0)


def test_the_highest_dropout_rate_keeps_one_level_of_the_draw():
    torch.manual_seed(0)
    mask, gain = sample_dropout(torch.zeros(1000, 1000), 0.999999)
    assert gain == 2**16
    assert 0 < mask.sum() < 40, "about 1,000,000 / 2¹⁶ entries"
