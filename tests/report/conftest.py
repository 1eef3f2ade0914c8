"""A folder ``results/mini`` of the test's own, which commands find as they find a user's: below where one is."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """An empty ``results/mini``, seen from the folder that holds ``results``."""
    root = tmp_path_factory.mktemp("checkout")
    (root / "results/mini").mkdir(parents=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        yield Path("results/mini")
