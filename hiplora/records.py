"""Where results live and how they are written: the only module that knows paths under ``results/`` and ``outputs/``.

A record is one JSON file; the per-sample predictions behind its numbers lie beside it, compressed. Both are
written under a temporary name and renamed, the record last: a record that exists is complete.
"""

from __future__ import annotations

import errno
import gzip
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from hiplora.errors import UserError

SCHEMA = 1
PACKAGES = ("torch", "transformers", "peft", "accelerate", "datasets", "lm_eval", "numpy", "hiplora")


def default_cache_dir() -> Path:
    """Folder of what can be recomputed (models, SVDs, mini-benchmarks): ``$HIPLORA_CACHE``, else ``outputs/cache``."""
    return Path(os.environ.get("HIPLORA_CACHE", "outputs/cache"))


def records_dir(results_dir: str | Path, pipeline: str) -> Path:
    """``results/<data>/records/<pipeline>``; ``results_dir`` is ``results/<data>``."""
    return Path(results_dir) / "records" / pipeline


def adapter_dir(outputs_dir: str | Path, train_id: str) -> Path:
    """Folder of one trained adapter; complete if it exists."""
    return Path(outputs_dir) / "adapters" / train_id


def checkpoint_dir(outputs_dir: str | Path, train_id: str) -> Path:
    """Folder of the resumable checkpoints of one training; removed when its adapter is complete."""
    return Path(outputs_dir) / "checkpoints" / train_id


def partial_path(outputs_dir: str | Path, key: str) -> Path:
    """One finished part of a long run, found again by what determines it."""
    return Path(outputs_dir) / "partial" / f"{key}.json"


def wandb_parent(outputs_dir: str | Path) -> Path:
    """Folder given to W&B, which makes its own ``wandb`` inside; nothing of ours ever removes that."""
    return Path(outputs_dir)


def lock_path(outputs_dir: str | Path, identity: str) -> Path:
    """What two processes that want the same record agree on."""
    return Path(outputs_dir) / "locks" / identity


def stem(labels: Mapping[str, Any], identity: str) -> str:
    """File name of a record without its ending: what a person looks for, then the identity."""
    words = [str(labels[key]) for key in ("method", "merge", "calibration", "task") if labels.get(key)]
    seed = [f"s{labels['seed']}"] if labels.get("seed") is not None else []
    return "-".join([*words, *seed, identity])


@contextmanager
def disk_errors(target: Path) -> Iterator[None]:
    """Turn a full disk or a missing permission into one sentence that names the target."""
    try:
        yield
    except OSError as error:
        reasons = {
            errno.ENOSPC: "the disk is full; free some space",
            errno.EDQUOT: "the disk quota is used up; free some space",
            errno.EACCES: "permission denied; choose another folder with outputs_dir=… or results_dir=…",
            errno.EROFS: "the file system is read-only; choose another folder with outputs_dir=… or results_dir=…",
        }
        if error.errno not in reasons:
            raise
        raise UserError(
            f"Cannot write {target}: {reasons[error.errno]} and type the same command again; what was complete is kept."
        ) from error


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that it is either absent (or as it was) or complete, also through a crash.

    Raises:
        UserError: the disk is full or not writable.
    """
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "wb") as stream:
                stream.write(content)
                stream.flush()
                os.fsync(stream.fileno())
            os.chmod(temporary, 0o644)
            os.replace(temporary, path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise


def write_json(path: Path, value: Any) -> None:
    """Write JSON atomically; NaN is refused, since no reader would agree on what it means."""
    write_atomically(path, (json.dumps(value, indent=1, allow_nan=False) + "\n").encode())


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON file of ours.

    Raises:
        UserError: the file is not valid JSON.
    """
    try:
        return json.loads(path.read_text())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not valid JSON ({error}); delete it and type the command again.") from None


def write_samples(path: Path, samples: list[dict[str, Any]]) -> None:
    """Write per-sample predictions as compressed JSON lines, the same bytes for the same content."""
    lines = "".join(json.dumps(sample, sort_keys=True) + "\n" for sample in samples)
    write_atomically(path, gzip.compress(lines.encode(), mtime=0))


def write_record(directory: Path, record: Mapping[str, Any], samples: list[dict[str, Any]]) -> Path:
    """Write the predictions (if any), then the record that names them; returns the record's path."""
    name = stem(record["labels"], record["id"])
    predictions = directory / f"{name}.predictions.jsonl.gz"
    if samples:
        write_samples(predictions, samples)
    path = directory / f"{name}.json"
    write_json(path, {"schema": SCHEMA, **record, "status": "ok", "samples": predictions.name if samples else None})
    return path


def find_record(directory: Path, identity: str) -> dict[str, Any] | None:
    """The record with this identity, or None where it does not exist."""
    found = sorted(directory.glob(f"*{identity}.json"))
    return read_json(found[0]) if found else None


def load_records(results_dir: str | Path, pipeline: str) -> list[dict[str, Any]]:
    """All complete records of one pipeline under ``results/<data>``, in order of their file names.

    Raises:
        UserError: a file is not valid JSON or has another schema.
    """
    records = []
    for path in sorted(records_dir(results_dir, pipeline).glob("*.json")):
        record = read_json(path)
        if record.get("schema") != SCHEMA:
            raise UserError(f"{path} has schema {record.get('schema')}, this version reads {SCHEMA}; redo the run.")
        records.append(record)
    return records


@contextmanager
def lock(path: Path) -> Iterator[None]:
    """Hold a lock between processes; a second process that wants the same result waits for the first."""
    from filelock import FileLock, Timeout

    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    guard = FileLock(f"{path}.lock")
    try:
        guard.acquire(timeout=0)
    except Timeout:
        print(f"Another process is working on {path.name}; waiting for it.", file=sys.stderr, flush=True)
        guard.acquire()
    try:
        yield
    finally:
        guard.release()


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
    """Commit and dirty flag of the source tree; None where it is not a git checkout."""

    def git(*arguments: str) -> str:
        root = Path(__file__).resolve().parent
        return subprocess.run(
            ["git", "-C", str(root), *arguments], capture_output=True, text=True, check=True, timeout=10
        ).stdout.strip()

    try:
        changed = git("status", "--porcelain", "--untracked-files=no", "--", ".", "../conf")
        return {"git_commit": git("rev-parse", "HEAD"), "git_dirty": bool(changed)}
    except (OSError, subprocess.SubprocessError):
        return {"git_commit": None, "git_dirty": None}
