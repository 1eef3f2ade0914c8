"""The process and its machine: the environment that a record names, freeing memory, and running as one process."""

from __future__ import annotations

import ctypes
import gc
import hashlib
import os
import platform
import re
import subprocess
import sys
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from hiplora.errors import UserError

PACKAGES = ("torch", "transformers", "peft", "accelerate", "datasets", "lm_eval", "numpy", "hiplora")

# From these variables torch, accelerate and libraries on top of them conclude that several processes train one model.
SIZES = ("WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")
OF_A_PROCESS = re.compile(
    r"(LOCAL_|GROUP_|ROLE_)?RANK|(LOCAL_|GROUP_|ROLE_)?WORLD_SIZE|MPI_LOCAL(NRANKS|RANKID)|"
    r"(PMI|OMPI_COMM_WORLD|MV2_COMM_WORLD)_(LOCAL_)?(SIZE|RANK)|(ACCELERATE|FSDP|PARALLELISM_CONFIG)_\w+"
)


def single_process() -> None:
    """Remove the environment variables of distributed training, so that libraries treat this process as a single one.

    Raises:
        UserError: the process was started as one of several that train together; they would wait for each other.
    """
    for name in SIZES:
        size = os.environ.get(name, "")
        if size.strip().isdigit() and int(size) > 1:
            raise UserError(
                f"{name}={size} says that this is one of {size} processes that train together, as torchrun, accelerate "
                "and mpirun start them, but a run is one process; start it without them (if none of them is used, "
                f"unset {name}), and for several runs at a time type -m with hydra/launcher=joblib, submitit_slurm or "
                "ray."
            )
    for name in [name for name in os.environ if OF_A_PROCESS.fullmatch(name)]:
        del os.environ[name]


def environment(device: str) -> dict[str, Any]:
    """What a number depends on besides its configuration: device, machine, package versions, commit."""
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "device": device,
        "cores": os.cpu_count(),
        "versions": {name: _version(name) for name in PACKAGES},
        **commit(),
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


@lru_cache
def code() -> str:
    """Digest (12 hex digits) of the package's files when first asked for, with or without git."""
    root = Path(__file__).resolve().parent
    files = sorted(path for path in root.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    total = hashlib.sha256()
    for path in files:
        total.update(f"{path.relative_to(root)} {hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return total.hexdigest()[:12]


@lru_cache
def commit() -> dict[str, Any]:
    """Commit and dirty flag of the source tree when first asked for, untracked files included.

    Both are None outside a git checkout, or if git does not answer.
    """

    def git(*arguments: str) -> str:
        root = Path(__file__).resolve().parent
        return subprocess.run(
            ["git", "-C", str(root), *arguments], capture_output=True, text=True, check=True, timeout=60
        ).stdout.strip()

    try:
        changed = git("status", "--porcelain", "--untracked-files=all", "--", ".", "../conf", "../pyproject.toml")
        return {"git_commit": git("rev-parse", "HEAD"), "git_dirty": bool(changed)}
    except (OSError, subprocess.SubprocessError):
        return {"git_commit": None, "git_dirty": None}


def return_memory() -> None:
    """Return freed memory to the system before the next stage: glibc and torch keep it, and peaks would add up."""
    gc.collect()
    torch = sys.modules.get("torch")  # not imported for this: any stage that computed something has imported it
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.empty_cache()  # torch caches freed blocks, in the sizes that the last stage used
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc has it, musl has not
        if trim is not None:
            trim(0)
