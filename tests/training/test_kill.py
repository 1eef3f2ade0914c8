from __future__ import annotations

import multiprocessing
import random
import time
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
import torch

from tests.training.worker import TRAINING, run_to_file, same

STEPS, KILLS = 40, 3  # enough steps that no kill comes after the last one


def steps_told(checkpoints: Path) -> int:
    """Lines of the curve; 0 while it is absent or being replaced."""
    try:
        return (checkpoints / "curve.jsonl").read_bytes().count(b"\n")
    except FileNotFoundError:
        return 0


@pytest.mark.e2e
def test_killed_at_random_moments_the_adapter_is_the_same(tiny: Path, tmp_path: Path) -> None:
    """SIGKILL, several times, wherever it hits: in a step, in a checkpoint, between them.

    The first comes before or around the first checkpoint, the others after it.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.training.worker", "hiplora.tuner.model"])

    def start(name: str) -> BaseProcess:
        where = (tiny, "hip", tmp_path / name, tmp_path / f"{name}.pt", STEPS)
        process = context.Process(target=run_to_file, args=where)
        process.start()
        return process

    start("whole").join()
    seed = random.randrange(2**32)
    rng, told = random.Random(seed), f"random.Random({seed})"
    first = TRAINING.checkpoint_every
    for at_step in [rng.randint(1, first), *sorted(rng.sample(range(first + 1, STEPS // 2), KILLS - 1))]:
        process = start("killed")
        while process.is_alive() and steps_told(tmp_path / "killed") < at_step:
            time.sleep(0.002)
        time.sleep(rng.uniform(0, 0.05))
        assert process.is_alive(), f"the training ended, or failed, before it could be killed: {told}"
        process.kill()
        process.join()
    start("killed").join()

    whole, end = (torch.load(tmp_path / f"{name}.pt") for name in ("whole", "killed"))
    assert whole["resumed"] is None
    assert end["resumed"] is not None, told
    assert end["curve"] == whole["curve"], told
    assert same(end["adapter"], whole["adapter"]), told
