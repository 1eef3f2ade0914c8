from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from transformers import AutoModelForCausalLM, GraniteConfig, GraniteForCausalLM

from hiplora.errors import UserError
from hiplora.packing.batches import micro_batch
from hiplora.packing.decoder import check_head
from hiplora.packing.rows import first_fit
from hiplora.training import loss
from tests.training.worker import examples


def test_loss_is_that_of_transformers_on_separate_examples(tiny: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny, dtype=torch.float32).eval()
    encoded = examples(12)
    batch = micro_batch(first_fit(encoded, row_tokens=64, order=range(12)), pad_id=0)
    expected = 0.0
    for example in encoded:
        ids = torch.tensor([example.prompt + example.answer])
        labels = torch.tensor([[-100] * len(example.prompt) + example.answer])
        expected += model(ids, labels=labels, use_cache=False).loss.item() * len(example.answer)
    assert loss.label_loss(model, batch).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_frozen_head_gives_the_gradient_of_autograd(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(loss.CHUNK_ELEMENTS, "cpu", 7 * 50)  # 20 positions in chunks of 7
    torch.manual_seed(0)
    head = nn.Linear(16, 50, bias=False, dtype=dtype).requires_grad_(False)
    hidden = (4 * torch.randn(20, 16)).to(dtype).requires_grad_()
    labels = torch.randint(50, (20,))
    ours = loss.cross_entropy_sum(hidden, head, labels)
    (gradient,) = torch.autograd.grad(ours / 3, hidden)
    reference = F.cross_entropy(head(hidden).float(), labels, reduction="sum")
    (expected,) = torch.autograd.grad(reference / 3, hidden)
    tolerance = 1e-5 if dtype is torch.float32 else 2e-2
    assert ours.item() == pytest.approx(reference.item(), rel=1e-5)
    torch.testing.assert_close(gradient, expected, rtol=tolerance, atol=tolerance)


def test_extreme_logits_stay_finite() -> None:
    hidden = torch.tensor([[1e4, -1e4]], requires_grad=True)
    head = nn.Linear(2, 2, bias=False).requires_grad_(False)
    head.weight.copy_(torch.eye(2))
    assert loss.cross_entropy_sum(hidden, head, torch.tensor([1])).item() == pytest.approx(2e4)


def test_a_trainable_head_gets_its_gradient() -> None:
    head, hidden = nn.Linear(8, 30, bias=False), torch.randn(5, 8)
    loss.cross_entropy_sum(hidden, head, torch.arange(5)).backward()
    assert head.weight.grad is not None


def test_models_that_scale_their_logits_are_refused(tiny: Path) -> None:
    check_head(AutoModelForCausalLM.from_pretrained(tiny))
    config = GraniteConfig(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        logits_scaling=8.0,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=0,
    )
    with pytest.raises(UserError, match="Granite"):
        check_head(GraniteForCausalLM(config))
