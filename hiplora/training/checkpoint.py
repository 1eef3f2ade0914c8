"""Checkpoints that are either complete or absent, so that a killed training resumes bit for bit.

A checkpoint is a folder ``step-00000020`` with ``state.pt`` (tensors and generator states) and ``progress.json``
(counters, curve, the SHA-256 of ``state.pt``, and a checksum of these). It is written under a temporary name, flushed
to disk and renamed. A checkpoint that does not match its checksums is ignored, and the previous one is used.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import os
import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hiplora.disk import disk_errors
from hiplora.errors import UserError

logger = logging.getLogger(__name__)

KEEP = 2
TENSORS, PROGRESS, PREFIX, TEMPORARY = "state.pt", "progress.json", "step-", ".writing"


def random_states(device: torch.device) -> dict[str, Any]:
    """The states of the random generators of Python, NumPy, torch and, on a GPU, of the training's device."""
    kind, keys, position, has_gauss, cached = np.random.get_state()
    return {
        "python": random.getstate(),
        "numpy": (kind, torch.from_numpy(np.asarray(keys).astype(np.int64)), position, has_gauss, cached),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state(device) if device.type == "cuda" else None,
    }


def set_random_states(states: dict[str, Any], device: torch.device) -> None:
    """Restore the states that :func:`random_states` returned; ``device`` may have another number than then."""
    random.setstate(states["python"])
    kind, keys, position, has_gauss, cached = states["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), position, has_gauss, cached))
    torch.set_rng_state(states["torch"])
    if states["cuda"] is not None:
        torch.cuda.set_rng_state(states["cuda"], device)


def save(folder: Path, *, tensors: dict[str, Any], progress: dict[str, Any]) -> None:
    """Write the checkpoint of step ``progress["step"]``; of the earlier steps ``KEEP`` - 1 stay, of later ones none.

    Later ones are there if a training started over, or resumed before a torn one.

    Raises:
        UserError: the disk is full or not writable; earlier checkpoints do not change.
    """
    buffer = io.BytesIO()  # serialised in memory: torch's own writer hides why a write failed
    torch.save(tensors, buffer)
    content = buffer.getvalue()
    progress = {**progress, "sha256": hashlib.sha256(content).hexdigest()}
    progress["checksum"] = _checksum(progress)
    temporary = folder / TEMPORARY
    final = folder / f"{PREFIX}{progress['step']:08d}"
    try:
        with disk_errors(final):
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir(parents=True)
            _write(temporary / TENSORS, content)
            _write(temporary / PROGRESS, json.dumps(progress).encode())
            shutil.rmtree(final, ignore_errors=True)  # of an earlier attempt: torn, or without a snapshot
            os.rename(temporary, final)
            _flush_folder(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    steps = _steps(folder)
    reached = [path for path in steps if path <= final]
    for path in steps:
        if path not in reached[-KEEP:]:
            shutil.rmtree(path)


def newest(folder: Path, *, fingerprint: str) -> tuple[dict[str, Any], dict[str, Any]] | None:
    """Tensors (on the CPU) and progress of the newest intact checkpoint, or None if there is none.

    Raises:
        UserError: that checkpoint belongs to another training.
    """
    for path in reversed(_steps(folder)):
        try:
            progress = json.loads((path / PROGRESS).read_text())
            if progress.pop("checksum") != _checksum(progress):
                raise ValueError("its counters do not match their checksum")
            content = (path / TENSORS).read_bytes()
            if hashlib.sha256(content).hexdigest() != progress.pop("sha256"):
                raise ValueError("checksum mismatch")
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:  # JSON may hold any type
            logger.warning("ignoring the incomplete checkpoint %s (%s)", path, error)
            continue
        if progress["fingerprint"] != fingerprint:
            raise UserError(
                f"{folder} holds the checkpoint of a training with other settings, another seed, other examples or "
                "parameters of other shapes: choose another folder, or delete it to start afresh"
            )
        return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True), progress
    return None


def _checksum(progress: dict[str, Any]) -> str:
    """SHA-256 (hex) of the stored progress; Python's JSON restores floats exactly, so reading does not change it."""
    return hashlib.sha256(json.dumps(progress).encode()).hexdigest()


def _steps(folder: Path) -> list[Path]:
    return sorted(folder.glob(f"{PREFIX}*"))


def _write(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _flush_folder(folder: Path) -> None:
    """Make a rename in the folder durable. Opening a folder for this needs POSIX."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
