"""The process and its machine: what a number depends on besides its configuration, and memory. A leaf."""

from __future__ import annotations

import ctypes
import gc
import os
import platform
import subprocess
import sys
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = ("torch", "transformers", "peft", "accelerate", "datasets", "lm_eval", "numpy", "hiplora")


def environment(device: str) -> dict[str, Any]:
    """What a number depends on besides the configuration: machine, versions, commit."""
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "device": device,
        "cores": os.cpu_count(),
        "versions": {name: _version(name) for name in PACKAGES},
        **_git(),
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


@lru_cache
def _git() -> dict[str, Any]:
    """Commit and dirty flag of the source tree, untracked files included; None where it is not a git checkout."""

    def git(*arguments: str) -> str:
        root = Path(__file__).resolve().parent
        return subprocess.run(
            ["git", "-C", str(root), *arguments], capture_output=True, text=True, check=True, timeout=10
        ).stdout.strip()

    try:
        changed = git("status", "--porcelain", "--untracked-files=all", "--", ".", "../conf")
        return {"git_commit": git("rev-parse", "HEAD"), "git_dirty": bool(changed)}
    except (OSError, subprocess.SubprocessError):
        return {"git_commit": None, "git_dirty": None}


def return_memory() -> None:
    """Give freed memory back before the next stage: glibc and torch keep it, and the stages' peaks would add up."""
    gc.collect()
    torch = sys.modules.get("torch")  # not loaded for this: a stage that computed something has loaded it
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.empty_cache()  # torch keeps freed blocks too, in the sizes that the last stage asked for
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc has it, musl has not
        if trim is not None:
            trim(0)
