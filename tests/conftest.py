"""What the tests of several folders share."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.tiny import tiny_llama_folder


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the tiny random Llama, once for all tests of a process: copy it before changing anything."""
    return tiny_llama_folder(tmp_path_factory.mktemp("tiny"))
