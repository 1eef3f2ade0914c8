"""Simulated results of trainings: loss curves and principal gains that are known, and vary with the seed."""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np

from hiplora.stages.results import Adapter, Gains

STEPS = 60
SIGMAS = np.geomspace(3.0, 40.0, 10)  # of the bins of gains
APART = {"no_stability": -0.015, "no_projection": 0.03}  # loss of an ablation beyond that of the whole method
BUDGET = {"g0": 0.0, "g1": 1.0, "g2": 2.0}  # γ by the key of a line


def generator(*label: Any) -> np.random.Generator:
    return np.random.default_rng(zlib.crc32(repr(label).encode()))


def result(adapter: Adapter, *, group: str, method: str, task: str, seed: int, **_: Any) -> Adapter:
    """An adapter's result with a curve, and with gains where its method is named by γ."""
    update: dict[str, Any] = {"curve": curve(group, method, task, seed)}
    if method in BUDGET:
        update["gains"] = gains(group, BUDGET[method], seed)
    return adapter.model_copy(update=update)


def curve(group: str, method: str, task: str, seed: int) -> list[dict[str, float]]:
    """The noise of a seed's examples is shared by all methods; ``zero_init`` comes down from far above."""
    steps = np.arange(1, STEPS + 1)
    shared = 0.15 * generator(task, seed).normal(size=STEPS)
    own = 0.01 * generator(group, method, task, seed).normal(size=STEPS)
    loss = 1.4 + 1.2 * np.exp(-steps / 10) + shared + own + APART.get(method, 0.0)
    if method == "zero_init":
        loss = loss + 4 * np.exp(-steps / 12)
    return [{"step": float(step), "loss": float(value)} for step, value in zip(steps, loss, strict=True)]


def gains(group: str, gamma: float, seed: int) -> list[Gains]:
    """Relative gains go with σ until the budget holds them, absolute ones are alike."""
    free = 0.03 * SIGMAS if group == "relative" else np.full(len(SIGMAS), 0.02)
    held = 1 + 0.4 * (SIGMAS / SIGMAS.mean()) ** gamma
    noise = 1 + 0.05 * generator(group, gamma, seed).normal(size=len(SIGMAS))
    sizes = free / held * noise
    return [
        Gains(sigma=float(sigma), size=float(size), shift=0.1 * float(size), n=384)
        for sigma, size in zip(SIGMAS, sizes, strict=True)
    ]
