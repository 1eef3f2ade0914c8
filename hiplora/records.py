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
import re
import shutil
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
    return Path(os.environ.get("HIPLORA_CACHE") or "outputs/cache")


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


def answers_dir(outputs_dir: str | Path, identity: str) -> Path:
    """Folder of the answers of an evaluation that is under way; removed when its record is written."""
    return Path(outputs_dir) / "answers" / identity


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


ELSEWHERE = "outputs_dir=…, results_dir=… or, for the cache, HIPLORA_CACHE=…"
_REFUSED = {
    errno.ENOSPC: "the disk is full; free some space",
    errno.EDQUOT: "the disk quota is used up; free some space",
    errno.EFBIG: "the file is larger than is allowed here; raise the limit (ulimit -f)",
    errno.EACCES: "permission denied; choose another folder ({elsewhere})",
    errno.EPERM: "permission denied; choose another folder ({elsewhere})",
    errno.EROFS: "the file system is read-only; choose another folder ({elsewhere})",
    errno.ENOTDIR: "a part of this path is a file, no folder; choose another folder ({elsewhere})",
    errno.EEXIST: "a part of this path is a file, no folder; choose another folder ({elsewhere})",
}


@contextmanager
def disk_errors(target: Path, *, elsewhere: str = ELSEWHERE) -> Iterator[None]:
    """Turn what the disk refuses (no room, no permission, a file in the way) into one sentence that names the target.

    ``elsewhere`` says how another folder is chosen. What no disk said passes as it is.
    """
    try:
        yield
    except Exception as error:
        code = _error_number(error)
        if code is None:
            raise
        reason = _REFUSED.get(code, f"{os.strerror(code)}; mend that").format(elsewhere=elsewhere)
        raise UserError(
            f"Cannot write {target}: {reason} and type the same command again; what was complete is kept."
        ) from error


def _error_number(error: Exception) -> int | None:
    """The system's number of a failure, also where safetensors tells it, in the words of an exception of its own."""
    if isinstance(error, OSError):
        return error.errno
    safetensors = sys.modules.get("safetensors")  # not imported: whoever raised its error has done so
    if safetensors is not None and isinstance(error, safetensors.SafetensorError):
        told = re.search(r"\(os error (\d+)\)", str(error))
        return int(told[1]) if told else None
    return None


@contextmanager
def new_folder(target: Path, *, elsewhere: str = ELSEWHERE) -> Iterator[Path]:
    """A folder to write to that takes the place of ``target`` when the block ends without an error, and else vanishes.

    So ``target`` is either complete or as it was. Everybody may read what is in it: safetensors lets only its owner.

    Raises:
        UserError: the disk is full or not writable.
    """
    with disk_errors(target, elsewhere=elsewhere):
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}."))
        try:
            yield temporary
            for path in (temporary, *temporary.rglob("*")):
                path.chmod(0o755 if path.is_dir() else 0o644)
            shutil.rmtree(target, ignore_errors=True)
            temporary.rename(target)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def check_writable(folder: Path) -> None:
    """Refuse, before anything is computed for it, a folder that cannot be made or written to; makes nothing.

    Raises:
        UserError: a file is in the way, or it may not be written there.
    """
    with disk_errors(folder):
        there = next(path for path in (folder, *folder.parents) if path.exists())
        if not there.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        if not os.access(there, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


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
        return json_object(path)
    except ValueError as error:
        raise UserError(f"{path} is not valid JSON ({error}); delete it and type the command again.") from None


def json_object(path: Path) -> dict[str, Any]:
    """The object in a JSON file, whoever wrote it. Raises ValueError where it holds none."""
    value = json.loads(path.read_text())
    if not isinstance(value, dict):
        raise ValueError(f"it holds a {type(value).__name__}, no object")
    return value


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

    guard = FileLock(f"{path}.lock")
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
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
