"""What the tests of several folders share."""

from __future__ import annotations

import os

# Before all else: the Hub's client, datasets and torch read these when they are imported.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("OMP_NUM_THREADS", "1")  # on matrices this small a second thread only waits

import gc
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.tiny import SMALL, tiny_llama_folder

SLOW = 0.1  # seconds


@pytest.fixture(scope="session", autouse=True)
def _quick() -> Iterator[None]:
    """Two things that cost a third of the time and test nothing.

    Accelerate collects garbage at every training, 0.3 s each over all imported modules: what survives a slow collection
    is left out of later ones. A sync of the disk takes 10 ms: no test cuts the power, and kills need none.
    """
    collect = gc.collect

    def collected(*generation: int) -> int:
        started = time.perf_counter()
        found = collect(*generation)
        if time.perf_counter() - started > SLOW:
            gc.freeze()
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gc, "collect", collected)
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield


@pytest.fixture(scope="session", autouse=True)
def shared_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The cache of every test that sets none of its own: one for all test processes, as users have one."""
    base = tmp_path_factory.getbasetemp()
    cache = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "cache"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HIPLORA_CACHE", str(cache))
        yield cache


@pytest.fixture
def small() -> list[str]:
    """The settings of a small run."""
    return SMALL


@pytest.fixture
def configured(tiny: Path, small: list[str], tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """The configuration of a small run, with more words, whose outputs and results go to the test's own folder."""
    from hiplora import models
    from hiplora.compose import compose

    places = [f"model.path={tiny}", f"outputs_dir={tmp_path}/outputs", f"results_dir={tmp_path}/results"]
    yield lambda *words: compose([*small, *places, *words])
    models.forget()


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the tiny random Llama, once for all tests of a process: copy it before changing anything."""
    return tiny_llama_folder(tmp_path_factory.mktemp("tiny"))
