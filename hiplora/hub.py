"""The commit of a revision of a repository on the Hub. A leaf."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Literal

from hiplora.errors import UserError

COMMIT = re.compile(r"[0-9a-f]{40}")


@cache
def commit(repository: str, revision: str | None, *, kind: Literal["model", "dataset"], field: str) -> str:
    """The commit (40 hex digits) of a revision; a branch or tag is looked up in the Hub's cache, then on the Hub.

    The cache comes first, so that a plan needs no network and runs on one machine agree while a branch moves on. Loads
    neither torch nor transformers.

    Args:
        revision: commit, branch or tag; None is the branch ``main``.
        field: the setting that names the revision, for the error message.

    Raises:
        UserError: the revision is not in the cache, and the Hub cannot be reached or does not have it.
    """
    name = revision or "main"
    if COMMIT.fullmatch(name):
        return name
    return _cached(repository, name, kind) or _online(repository, name, kind, field)


def offline() -> bool:
    """Whether the Hub's client is set not to use the network."""
    from huggingface_hub.constants import HF_HUB_OFFLINE

    return bool(HF_HUB_OFFLINE)


def cached_file(repository: str, name: str, *, revision: str) -> Path | None:
    """The path of a model repository's file in the Hub's cache; None if it was not downloaded."""
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(repository, name, revision=revision)
    return Path(found) if isinstance(found, str) else None


def _cached(repository: str, name: str, kind: str) -> str | None:
    """The commit that the Hub's client noted when it downloaded this revision; None without a note."""
    from huggingface_hub.constants import HF_HUB_CACHE

    note = Path(HF_HUB_CACHE) / f"{kind}s--{repository.replace('/', '--')}" / "refs" / name
    try:
        noted = note.read_text().strip()
    except (OSError, ValueError):
        return None
    return noted if COMMIT.fullmatch(noted) else None


def _online(repository: str, name: str, kind: str, field: str) -> str:
    from huggingface_hub import HfApi

    try:
        found = HfApi().repo_info(repository, repo_type=kind, revision=name, timeout=10).sha
    except Exception as error:  # the errors of the client and of its HTTP library have no common base
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise UserError(
            f"Neither the Hub's cache nor the Hub says which commit {name} of {repository} is ({reason.rstrip('.')}); "
            f"connect to it (if it is gated, with `hf auth login`), or type {field}=COMMIT."
        ) from error
    return str(found)
