"""Split-LoRA against plain LoRA, and against clients and a server with parameters of their own."""

from __future__ import annotations

from itertools import combinations, islice
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.func import functional_call

from hiplora.errors import UserError
from hiplora.packing.batches import micro_batch
from hiplora.training.loss import label_loss
from hiplora.training.stream import row_stream
from tests.training.worker import OPTIONS, adapter, attached, examples, fit, training

STEPS, CLIENTS, EVERY = 5, 3, 2
CLIPPED = 0.1  # a norm that every step's gradient exceeds


def split(**changes: Any) -> Any:
    return OPTIONS["split"].but(**changes)


def test_one_client_without_averaging_is_lora(tiny: Path, tmp_path: Path) -> None:
    method = split(clients=1, average_every=None)
    ours, lora = attached(tiny, method), attached(tiny, OPTIONS["lora"])
    fit(ours, tiny, method, tmp_path / "split")
    fit(lora, tiny, OPTIONS["lora"], tmp_path / "lora")
    assert adapter(ours).keys() == adapter(lora).keys()
    assert all(torch.equal(value, adapter(lora)[name]) for name, value in adapter(ours).items())


class Loss(torch.nn.Module):
    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: dict[str, Any]) -> torch.Tensor:
        return label_loss(self.model, batch)


def reference(model: Any) -> dict[str, torch.Tensor]:
    """N client dictionaries and one of the server, each client with a row of its own shard; AdamW by the book."""
    settings = training(max_grad_norm=CLIPPED)
    whole = {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}
    lower = [name for name in whole if ".layers.0." in name]
    server = {name: value.clone().requires_grad_() for name, value in whole.items() if name not in lower}
    clients = [{name: whole[name].clone().requires_grad_() for name in lower} for _ in range(CLIENTS)]
    order = torch.randperm(40, generator=torch.Generator().manual_seed(42)).tolist()
    data = examples()
    shards = [row_stream([data[i] for i in order[n::CLIENTS]], row_tokens=64, seed=42) for n in range(CLIENTS)]
    everything = [*server.values(), *(value for client in clients for value in client.values())]
    optimizer = torch.optim.AdamW(everything, lr=settings.lr, weight_decay=settings.weight_decay)
    loss = Loss(model)
    for step in range(1, STEPS + 1):
        batches = [micro_batch(list(islice(shard, 1)), pad_id=0) for shard in shards]
        losses = [
            functional_call(loss, {f"model.{n}": p for n, p in {**server, **client}.items()}, (batch,))
            for client, batch in zip(clients, batches, strict=True)
        ]
        optimizer.zero_grad()
        (sum(losses) / sum(len(batch["label_ids"]) for batch in batches)).backward()
        torch.nn.utils.clip_grad_norm_(everything, settings.max_grad_norm)
        optimizer.step()
        if step % EVERY == 0 or step == STEPS:
            for name in lower:
                mean = torch.stack([client[name].detach() for client in clients]).mean(dim=0)
                for client in clients:
                    client[name].data.copy_(mean)
    return {name: (server | clients[0])[name].detach() for name in whole}


def test_clients_and_server_with_their_own_parameters_compute_the_same(tiny: Path, tmp_path: Path) -> None:
    method = split(dropout=0.0, average_every=EVERY, cut=0.5)
    plain = OPTIONS["lora"].but(dropout=0.0)
    expected = reference(attached(tiny, plain))
    model = attached(tiny, method)
    trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
    result = fit(model, tiny, method, tmp_path, steps=STEPS, max_grad_norm=CLIPPED)
    assert result.steps == STEPS
    trained = adapter(model)
    assert trained.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(trained[name], value, rtol=1e-3, atol=1e-5)
    lower = sum(value.numel() for name, value in expected.items() if ".layers.0." in name)
    assert trainable == sum(value.numel() for value in expected.values()) + (CLIENTS - 1) * lower


def test_a_further_training_has_the_clients_again(tiny: Path, tmp_path: Path) -> None:
    """Only their average is deployed; each goes on from where it was."""
    method = split(average_every=None)
    model, again = attached(tiny, method), attached(tiny, method)
    native = fit(model, tiny, method, tmp_path, steps=STEPS).native
    method.go_on(again, native)
    layer = again.get_base_model().model.layers[0].self_attn.q_proj
    own = [layer.lora_B[name].weight for name in layer.lora_B]
    assert len(own) == CLIENTS
    assert not any(torch.equal(one, other) for one, other in combinations(own, 2))
    method.finish(again)
    assert torch.equal(torch.stack(own).mean(dim=0), layer.lora_B["default"].weight)
    assert all(torch.equal(value, adapter(again)[name]) for name, value in adapter(model).items())


def test_what_cannot_be_split_is_told(tiny: Path, tmp_path: Path) -> None:
    shapes = {f"model.layers.{layer}.self_attn.q_proj": (64, 64) for layer in range(2)}
    split(cut=0.5).check(shapes)
    with pytest.raises(UserError, match=r"method\.cut=0\.1 of 2 layers"):
        split(cut=0.1).check(shapes)
    method = split(clients=2)
    with pytest.raises(
        UserError, match=r"training\.rows_per_step=3 cannot be split evenly over .* 2 shards .* a multiple of 2"
    ):
        fit(attached(tiny, method), tiny, method, tmp_path)
