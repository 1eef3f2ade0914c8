"""The command line on a tiny model: one cache and one backbone for all end-to-end tests."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.commands import forked
from tests.tiny import SMALL, tiny_llama_folder

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def cache(shared_cache: Path) -> Path:
    return shared_cache


@pytest.fixture(scope="session")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llama_folder(tmp_path_factory.mktemp("backbone"))


@pytest.fixture
def arguments(tmp_path: Path, backbone: Path) -> list[str]:
    """A small run whose outputs and results go to the test's own folder."""
    return [*SMALL, f"model.path={backbone}", f"outputs_dir={tmp_path}/outputs", f"results_dir={tmp_path}/results"]


@pytest.fixture
def environment(cache: Path) -> Iterator[dict[str, str]]:
    return {**os.environ, "HIPLORA_CACHE": str(cache), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}


@pytest.fixture
def run(arguments: list[str], environment: dict[str, str]) -> Run:
    """``python -m hiplora.run`` with more overrides; returns the finished process."""

    def call(*overrides: str) -> subprocess.CompletedProcess[str]:
        multirun = ["-m"] if "-m" in overrides else []
        chosen = [text for text in overrides if text != "-m"]
        return forked([*multirun, *arguments, *chosen], environment)

    return call
