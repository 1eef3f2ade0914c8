"""A merged update is attached without touching a weight."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from hiplora.errors import UserError
from hiplora.merging.attached import attached
from hiplora.updates import Dense, LowRank


def small() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(24, 20), nn.Tanh(), nn.Linear(20, 30))


@pytest.mark.parametrize("rank", [1, 4, 15])
def test_outputs_are_those_of_changed_weights_and_the_backbone_stays(rank: int) -> None:
    model, x = small(), torch.randn(5, 24)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    plain = model(x)
    updates = {"0": LowRank(torch.randn(20, rank), torch.randn(rank, 24)), "2": Dense(torch.randn(30, 20))}
    with attached(model, updates):
        inside = model(x)
    folded = small()
    with torch.no_grad():
        for name, update in updates.items():
            folded.get_submodule(name).weight += update.dense()
    torch.testing.assert_close(inside, folded(x), rtol=1e-5, atol=1e-5)
    assert torch.equal(model(x), plain)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("name", ["1", "7", "2"])
def test_a_foreign_update_is_refused_and_leaves_nothing(name: str) -> None:
    model, x = small(), torch.randn(5, 24)
    plain = model(x)
    wrong = {"0": Dense(torch.ones(20, 24)), name: Dense(torch.ones(20, 24))}
    with pytest.raises(UserError), attached(model, wrong):
        pytest.fail("a foreign update was attached")
    assert torch.equal(model(x), plain)


@pytest.mark.parametrize("rank", [1, 15])
def test_an_update_wider_than_the_backbone_is_not_rounded_to_it(rank: int) -> None:
    """As PEFT computes adapters in float32 on a backbone in bf16: also where a full matrix is the quicker way."""
    model, x = small()[:1].to(torch.bfloat16), torch.randn(5, 24).to(torch.bfloat16)
    update = LowRank(torch.randn(20, rank), torch.randn(rank, 24))
    expected = (model(x) + x.float() @ update.dense().mT).to(torch.bfloat16)
    with attached(model, {"0": update}, dtype=torch.float32):
        torch.testing.assert_close(model(x), expected, rtol=2**-7, atol=0)
