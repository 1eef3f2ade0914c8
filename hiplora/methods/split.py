"""Split-LoRA (Lin et al. 2024): split fine-tuning with clients, simulated in one process.

The layers below a cut are the clients' part, the rest is the server's. Each of N clients has its own LoRA on the
lower layers and a disjoint shard of the data; the server's LoRA on the upper layers sees every client's
activations. Every I optimizer steps and at the end, the clients' LoRAs are averaged factor by factor.

Activations and gradients cross the cut unchanged, so one process switches the lower LoRA between the clients'
micro-batches. Two quantities are global here, which a real deployment would have to exchange: the loss is normalised
by the label tokens of the whole step, and the gradient is clipped by its norm over server and clients. With one client
it is plain LoRA.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from hiplora.methods.base import require
from hiplora.methods.lora import PlainLora

if TYPE_CHECKING:
    from peft import PeftModel
    from torch import nn

    from hiplora.methods.base import Setup

OWN = "default"  # PEFT's name of the adapter that stays: the server's LoRA and the first client's


class Split(PlainLora):
    """Options of ``method=split``.

    ``clients`` is N, ``average_every`` is I (null: only at the end), ``cut`` the share of the layers that is the
    clients' part.
    """

    parity_exception: ClassVar[str | None] = "trains a copy of the lower layers' LoRA per client; one is deployed"

    clients: int
    average_every: int | None
    cut: float

    def check_options(self) -> None:
        super().check_options()
        require(1 <= self.clients <= 1000, f"method.clients={self.clients} must be from 1 to 1000, such as 4")
        require(
            self.average_every is None or 1 <= self.average_every <= 10**9,
            f"method.average_every={self.average_every} must be from 1 to 1e9 steps, or null for once at the end",
        )
        require(0 < self.cut < 1, f"method.cut={self.cut} must be a share of the layers between 0 and 1, such as 0.25")

    def check(self, shapes: Mapping[str, tuple[int, int]]) -> None:
        super().check(shapes)
        _lower(shapes, self.cut)

    @property
    def shards(self) -> int:
        """One shard of the data per client."""
        return self.clients

    def attach(self, backbone_model: nn.Module, *, setup: Setup) -> PeftModel:
        """A fresh LoRA on all layers, and a copy of its lower part for every further client."""
        import torch

        model = super().attach(backbone_model, setup=setup)
        layers = _lora_layers(model)
        lower = {name: layers[name] for name in _lower(layers, self.cut)}
        for client in range(1, self.clients):
            copy = self.peft_config(setup=setup)
            copy.target_modules = [*lower]
            model.add_adapter(_name(client), copy)
        with torch.no_grad():
            for factor in _factors(lower, self.clients):
                for own in factor[1:]:
                    own.copy_(factor[0])
        self.before_micro_batch(model, 0)
        return model

    def before_micro_batch(self, peft_model: PeftModel, shard: int) -> None:
        """Activate the client's LoRA on the lower layers. The other clients' LoRAs stay trainable."""
        if self.clients == 1:
            return
        for layer in _held_by_clients(peft_model).values():
            layer.set_adapter(_name(shard))
            for factors in (layer.lora_A, layer.lora_B):
                factors.requires_grad_(True)

    def after_step(self, peft_model: PeftModel, step: int) -> None:
        if self.average_every is not None and step % self.average_every == 0:
            self._average(peft_model)

    def finish(self, peft_model: PeftModel) -> None:
        """Average once more and keep the average alone, as the lower part of one adapter."""
        self._average(peft_model)
        self.before_micro_batch(peft_model, 0)
        for client in range(1, self.clients):
            peft_model.delete_adapter(_name(client))

    def _average(self, peft_model: PeftModel) -> None:
        """Replace the clients' factors by their mean, with equal weights: shards differ by at most one example."""
        import torch

        with torch.no_grad():
            for factor in _factors(_held_by_clients(peft_model), self.clients):
                mean = torch.stack([*factor]).mean(dim=0)
                for own in factor:
                    own.copy_(mean)


def _name(client: int) -> str:
    return OWN if client == 0 else f"client{client}"


def _lora_layers(peft_model: PeftModel) -> dict[str, Any]:
    from peft.tuners.lora import LoraLayer

    modules = peft_model.get_base_model().named_modules()
    return {name: module for name, module in modules if isinstance(module, LoraLayer)}


def _lower(names: Iterable[str], cut: float) -> list[str]:
    """The modules below the cut; a module's layer is the first number in its name. UserError if a side is empty."""
    numbers = {name: int(number[1]) for name in names if (number := re.search(r"\.(\d+)\.", name))}
    depth = 1 + max(numbers.values(), default=-1)
    height = round(cut * depth)
    require(
        0 < height < depth,
        f"method.cut={cut} of {depth} layers leaves one side without layers: give a share nearer to one half",
    )
    return [name for name, number in numbers.items() if number < height]


def _held_by_clients(peft_model: PeftModel) -> dict[str, Any]:
    """The LoRA layers that every client has a copy of; none with one client."""
    return {name: layer for name, layer in _lora_layers(peft_model).items() if len(layer.lora_A) > 1}


def _factors(layers: dict[str, Any], clients: int) -> Iterator[list[Any]]:
    """For every A and every B of these layers, the list of the clients' copies, in order of clients."""
    for layer in layers.values():
        for factors in (layer.lora_A, layer.lora_B):
            yield [factors[_name(client)].weight for client in range(clients)]
