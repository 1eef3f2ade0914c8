"""What the tests of several folders share."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.tiny import tiny_llama_folder


def pytest_collection_finish() -> None:
    """Keep imported modules out of garbage collection: Accelerate collects at every training, 0.3 s each with them."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def _no_fsync() -> Iterator[None]:
    """No test cuts the power, and a sync takes 10 ms. Kills and full disks, which are tested, need none."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield


@pytest.fixture(scope="session")
def shared_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The cache of every test that needs none of its own: one for all test processes, as users have one."""
    base = tmp_path_factory.getbasetemp()
    return (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "cache"


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the tiny random Llama, once for all tests of a process: copy it before changing anything."""
    return tiny_llama_folder(tmp_path_factory.mktemp("tiny"))
