"""A mirror of the Hub in a folder of the test's own."""

from __future__ import annotations

import pytest

from hiplora.tasks.source import Data, Source


@pytest.fixture
def hub(tmp_path, monkeypatch) -> Source:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    return Source(Data(name="hub", root=str(tmp_path / "hub"), revisions={}))
