"""The start of PiSSA: PEFT's own, and put back as it was wherever it is computed again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import get_peft_model
from transformers import AutoModelForCausalLM, set_seed

from hiplora.training.trainer import native_state
from tests.training.worker import OPTIONS, SETUP, attached, same

PISSA: Any = OPTIONS["pissa"]


def weights(model: Any) -> dict[str, torch.Tensor]:
    """Of every parameter, the adapter's and those that are left in the backbone."""
    return {name: value.clone() for name, value in model.state_dict().items()}


@pytest.mark.parametrize("iterations", [None, 4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
def test_the_start_is_pefts_and_its_own_state_puts_it_back(tiny: Path, dtype: torch.dtype, iterations: Any) -> None:
    method = PISSA.but(iterations=iterations)
    backbone: Any = AutoModelForCausalLM.from_pretrained(tiny, dtype=dtype)
    set_seed(7)
    expected = weights(get_peft_model(backbone, method.peft_config(setup=SETUP)))
    model = attached(tiny, method, dtype=dtype)
    assert same(weights(model), expected)
    method.load_state(model, method.state(model))
    assert same(weights(model), expected)
    assert all(update.norm() < 1e-9 for update in method.updates(model).values())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
def test_where_the_svd_comes_out_otherwise_the_first_start_is_put_back(
    tiny: Path, monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype
) -> None:
    """Another machine: other last bits, and other signs."""
    first = attached(tiny, PISSA, dtype=dtype)
    with torch.no_grad():
        for parameter in (p for p in first.parameters() if p.requires_grad):
            parameter += 0.01 * torch.randn_like(parameter)
    svd = torch.linalg.svd

    def other(matrix: torch.Tensor, **options: Any) -> tuple[torch.Tensor, ...]:
        U, S, Vh = svd(matrix, **options)
        return -U * (1 + 1e-6), S * (1 - 1e-6), -Vh

    monkeypatch.setattr(torch.linalg, "svd", other)
    there = attached(tiny, PISSA, dtype=dtype)
    assert not same(PISSA.state(there), PISSA.state(first))
    monkeypatch.undo()

    PISSA.go_on(there, native_state(first, PISSA))
    assert same(weights(there), weights(first))
    assert same(PISSA.state(there), PISSA.state(first))
    updates = PISSA.updates(first)
    assert all(torch.equal(update.dense(), updates[name].dense()) for name, update in PISSA.updates(there).items())
    plain = AutoModelForCausalLM.from_pretrained(tiny, dtype=dtype).state_dict()
    assert same(dict(PISSA.detach(there).state_dict()), dict(plain))
