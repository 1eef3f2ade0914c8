from __future__ import annotations

import multiprocessing
import random
import time
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
import torch

from tests.training.worker import run_to_file

STEPS, KILLS = 16, 3


def steps_told(checkpoints: Path) -> int:
    """Lines of the curve; 0 while it is absent or being replaced."""
    try:
        return (checkpoints / "curve.jsonl").read_bytes().count(b"\n")
    except FileNotFoundError:
        return 0


@pytest.mark.e2e
def test_killed_at_random_moments_the_adapter_is_the_same(tiny: Path, tmp_path: Path) -> None:
    """SIGKILL, several times, wherever it hits: in a step, in a checkpoint, between them."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.training.worker", "hiplora.tuner.model"])

    def start(name: str) -> BaseProcess:
        where = (tiny, "hip", tmp_path / name, tmp_path / f"{name}.pt", STEPS)
        process = context.Process(target=run_to_file, args=where)
        process.start()
        return process

    start("whole").join()
    rng = random.Random()
    for at_step in sorted(rng.sample(range(1, STEPS - 8), KILLS)):
        process = start("killed")
        while process.is_alive() and steps_told(tmp_path / "killed") < at_step:
            time.sleep(0.002)
        time.sleep(rng.uniform(0, 0.05))
        assert process.is_alive(), "the training ended, or failed, before it could be killed"
        process.kill()
        process.join()
    start("killed").join()

    whole, end = (torch.load(tmp_path / f"{name}.pt") for name in ("whole", "killed"))
    assert whole["resumed"] is None
    assert end["resumed"] is not None
    assert end["curve"] == whole["curve"]
    assert end["adapter"].keys() == whole["adapter"].keys()
    assert all(torch.equal(end["adapter"][name], value) for name, value in whole["adapter"].items())
