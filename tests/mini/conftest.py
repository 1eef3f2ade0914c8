from __future__ import annotations

from pathlib import Path

import pytest

from hiplora.mini import materialise


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return materialise(tmp_path_factory.mktemp("mini"))
