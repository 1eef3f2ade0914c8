"""Kind ``efficiency``: the cost of training with each method, all measured in one process, in turns."""

from __future__ import annotations

import os
import platform
import re
import tempfile
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field

from hiplora import models
from hiplora.config import As, Natural, Place, Positive, Seed
from hiplora.methods.base import Method, Setup
from hiplora.models import Model
from hiplora.spectral.options import Svd
from hiplora.stages import energy
from hiplora.stages.base import Job, Made, Stage
from hiplora.stages.results import Cost, Costs
from hiplora.stages.targets import resolved, target_shapes
from hiplora.stages.train import put_on
from hiplora.tasks.base import Task
from hiplora.tasks.source import Data, Source
from hiplora.training.options import Training

if TYPE_CHECKING:
    from torch import nn


class Efficiency(Stage):
    """Each of ``methods`` trains ``warmup`` steps and then ``training.steps`` timed ones, ``repetitions`` times.

    The methods take turns, and each round begins with another method, so that a machine that slows down slows them all.
    """

    kind: ClassVar[str] = "efficiency"
    version: ClassVar[int] = 2

    methods: dict[str, Method]
    task: Annotated[Task, As(lambda task: task.trained())]
    seed: Seed
    model: Model
    targets: Annotated[tuple[str, ...], Field(strict=False), As(sorted)]
    svd: Svd
    training: Training
    warmup: Natural
    repetitions: Positive
    data: Annotated[Data, Place]

    def reads(self) -> dict[str, str]:
        return {"backbone": models.identity(self.model), **self.task.training_reads(Source(self.data))}

    def identity(self) -> dict[str, Any]:
        return super().identity() | self._recomputed()

    def described(self) -> dict[str, Any]:
        return super().described() | self._recomputed()

    def _recomputed(self) -> dict[str, Any]:
        """Gradient checkpointing, if it is on: it changes no adapter, but the memory and the time measured here."""
        return {"gradient_checkpointing": True} if self.training.gradient_checkpointing else {}

    def where(self) -> str:
        """Device, arithmetic, and the machine with threads and GPU: on another machine all numbers would differ."""
        return f"{self.model.where()}-{machine(gpu=models.device_type(self.model) == 'cuda')}"

    def name(self) -> str:
        return f"{'+'.join(self.methods)}-{self.task.name}"

    def check(self) -> None:
        models.check(self.model)
        self.task.check_training(Source(self.data))

    def run(self, job: Job) -> Made:
        from tqdm import tqdm

        backbone = models.load(self.model)
        shapes = target_shapes(backbone.model, resolved(backbone.model, self.targets))
        seconds, size = svd_cost(backbone.model, shapes, self.svd)
        turns = [(repetition, name) for repetition in range(self.repetitions) for name in self._order(repetition)]
        for repetition, name in tqdm(turns, desc="efficiency", unit="turn"):
            place = f"{repetition}/{name}"
            if job.parts.get(place) is None:
                self.methods[name].check(shapes)
                job.parts.keep({place: self._turn(backbone, self.methods[name])})
        found = {name: [job.parts.get(f"{r}/{name}") for r in range(self.repetitions)] for name in self.methods}
        costs = {
            name: Cost(
                tokens_per_second=[turn["tokens_per_second"] for turn in turns],
                peak_memory_bytes=max(turn["peak_memory_bytes"] for turn in turns),
                uses_svd=self.methods[name].uses_svd,
            )
            for name, turns in found.items()
        }
        return Made(Costs(methods=costs, svd_seconds=seconds, svd_cache_bytes=size), models.describe(backbone))

    def _order(self, repetition: int) -> list[str]:
        names = list(self.methods)
        first = repetition % len(names)
        return [*names[first:], *names[:first]]

    def _turn(self, backbone: models.Backbone, method: Method) -> dict[str, Any]:
        """Tokens per second of the steps after the warm-up, and the peak memory in bytes."""
        from transformers import set_seed

        from hiplora.training.memory import peak_memory
        from hiplora.training.trainer import train

        encoded = self.task.encoded_examples(Source(self.data), backbone.tokenizer)
        steps = self.warmup + self.training.steps  # one training, so that a method's schedule runs once, to its end
        training = self.training.but(steps=steps, log_every=steps, checkpoint_every=steps, snapshots=())
        targets = resolved(backbone.model, self.targets)
        setup = Setup(targets=targets, svd=self.svd if method.uses_svd else None, training=training)
        set_seed(self.seed)
        attach = lambda: method.attach(backbone.model, setup=setup)  # noqa: E731
        with put_on(method, attach) as model, peak_memory(backbone.device) as peak:
            with tempfile.TemporaryDirectory() as folder:
                trained = train(
                    model,
                    backbone.tokenizer,
                    encoded,
                    method=method,
                    training=training,
                    seed=self.seed,
                    checkpoint_dir=Path(folder),
                )
            tokens = [0, *(entry["tokens"] for entry in trained.curve)]
            speed = speed_behind(self.warmup, tokens=tokens, seconds=[0.0, *trained.elapsed])
            return {"tokens_per_second": speed, "peak_memory_bytes": peak()}


def speed_behind(warmup: int, *, tokens: Sequence[float], seconds: Sequence[float]) -> float:
    """Tokens per second of the steps after the first ``warmup``.

    ``tokens`` and ``seconds`` are cumulative: entry i is the total after i steps, entry 0 is 0.
    """
    return (tokens[-1] - tokens[warmup]) / (seconds[-1] - seconds[warmup])


def svd_cost(model: nn.Module, names: Iterable[str], svd: Svd) -> tuple[float, int]:
    """Seconds to compute the singular directions of all target matrices, and the size of their cache file in bytes."""
    from hiplora.spectral import load_or_compute

    weights = energy.matrices(model, names)
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        found = load_or_compute(weights, **svd.fields(), cache_dir=Path(folder))
        return round(time.perf_counter() - started, 3), found.path.stat().st_size


def machine(*, gpu: bool) -> str:
    """Processor, number of cores and torch's threads, such as ``amd-epyc-x2-t1``, for a file name. Loads torch.

    With ``gpu`` the name of torch's current GPU follows.
    """
    import torch

    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    named = next((line.split(":", 1)[1] for line in lines if line.startswith("model name")), platform.processor())
    found = f"{_words(named or platform.machine())}-x{os.cpu_count()}-t{torch.get_num_threads()}"
    return f"{found}-{_words(torch.cuda.get_device_name())}" if gpu else found


def _words(name: str) -> str:
    """A name in lower case, with hyphens for all but letters and digits."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
