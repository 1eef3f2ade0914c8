"""Which commit a revision is: without the Hub, with it, and what is said where neither knows."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from hiplora.compose import compose
from hiplora.errors import UserError
from hiplora.hub import COMMIT, commit

A, B = 40 * "a", 40 * "b"


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    commit.cache_clear()
    yield
    commit.cache_clear()


def asked(revision, kind="model") -> str:
    return commit("org/name", revision, kind=kind, field="model.revision")


def test_the_hubs_cache_is_asked_first(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.HfApi", None)
    refs = tmp_path / "models--org--name" / "refs"
    (refs / "pr").mkdir(parents=True)
    (refs / "main").write_text(A + "\n")
    (refs / "pr" / "1").write_text(B)
    assert asked(None) == A
    assert asked("pr/1") == B
    assert asked(B) == B


def test_then_the_hub(tmp_path, monkeypatch):
    calls = []

    def repo_info(repository, **options):
        calls.append((repository, options["repo_type"], options["revision"]))
        return SimpleNamespace(sha=B)

    monkeypatch.setattr("huggingface_hub.HfApi", lambda: SimpleNamespace(repo_info=repo_info))
    (tmp_path / "datasets--org--name" / "refs").mkdir(parents=True)
    (tmp_path / "datasets--org--name" / "refs" / "main").write_text("half")
    assert asked("main", "dataset") == asked("main", "dataset") == B
    assert calls == [("org/name", "dataset", "main")], "asked once per process"


def test_where_neither_knows_a_commit_is_asked_for(monkeypatch):
    def repo_info(repository, **options):
        raise ConnectionError("Cannot reach https://huggingface.co: offline mode\nis enabled")

    monkeypatch.setattr("huggingface_hub.HfApi", lambda: SimpleNamespace(repo_info=repo_info))
    with pytest.raises(UserError, match=r"main of org/name .*\(Cannot .* is enabled\).* model\.revision=COMMIT"):
        asked(None)


def test_the_papers_scale_is_pinned():
    config = compose(["scale=paper"])
    assert all(COMMIT.fullmatch(str(pin)) for pin in (config.model.revision, *config.data.revisions.values()))
    assert compose(["scale=paper", "data.root=mirror"]).data.root == "mirror"
