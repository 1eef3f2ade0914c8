"""Files that are complete or absent, locks between processes, what a disk refuses in one sentence. A leaf."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from hiplora.errors import UserError


def typed_path(text: str) -> Path:
    """The path that a user typed: no shell replaces a ``~`` that stands behind an equals sign."""
    return Path(os.path.expanduser(text))  # as it is where there is no such home, which Path's own raises an error for


def check_folder(field: str, value: Any) -> None:
    """Refuse what names no folder, such as an empty text; whether it is there is not asked. Raises UserError."""
    if not isinstance(value, str):
        wrong = f"{field}={'null' if value is None else value} names no folder"
    elif not value.strip():
        wrong = f"{field}= is empty"
    elif str(typed_path(value)).startswith("~"):
        wrong = f"{field}={value} begins with ~, and there is no such home folder"
    else:
        return
    raise UserError(f"{wrong}; leave it out, or type {field}=DIR (./DIR for a name that reads as a number).")


def default_cache_dir() -> Path:
    """Folder of what can be recomputed (models, SVDs, mini-benchmarks): ``$HIPLORA_CACHE``, else ``outputs/cache``."""
    return typed_path(os.environ.get("HIPLORA_CACHE") or "outputs/cache")


A_DAY = 86400.0  # seconds: nothing is being written for so long
SEAL = "sha256.json"  # inside a sealed folder
_INTACT: set[tuple[int, int, int]] = set()
_NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP)
FOLDERS = ("outputs_dir", "results_dir")  # a run writes nowhere else, but for the cache
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
        reason = _REFUSED.get(code, f"{os.strerror(code)}; resolve that").format(elsewhere=elsewhere)
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


def seal(folder: Path) -> None:
    """Note the SHA-256 of every file below a folder in it, for :func:`intact` to compare."""
    write_json(folder / SEAL, {"files": {name: sha256(folder / name) for name in _names(folder)}})


def intact(folder: Path) -> bool:
    """Whether a folder holds the files that it was sealed with and no others; the disk is asked once per process."""
    if not folder.is_dir():
        return False
    state = folder.stat()
    known = (state.st_dev, state.st_ino, state.st_mtime_ns)
    if known not in _INTACT:
        try:
            written = json_object(folder / SEAL).get("files")
        except (OSError, ValueError):
            return False
        if written != {name: sha256(folder / name) for name in _names(folder)}:
            return False
        _INTACT.add(known)
    return True


def _names(folder: Path) -> list[str]:
    """Relative paths of the files below a folder, without hidden ones: systems put their own beside them."""
    files = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file() and path != folder / SEAL)
    return sorted(path.as_posix() for path in files if not any(part.startswith(".") for part in path.parts))


def clear_leftovers(target: Path, *, age: float = 0.0) -> None:
    """Remove what processes that were killed have left of writing ``target``, where it is ``age`` seconds old or more.

    Without an age, only whoever holds the lock of the target may do this: another process may be writing.
    """
    name = re.compile(re.escape(f".{target.name}.") + "[a-z0-9_]{8}")  # as tempfile calls them
    if not target.parent.is_dir():
        return
    for path in target.parent.iterdir():
        with suppress(OSError):  # its owner was quicker, or another user's
            if name.fullmatch(path.name) and time.time() - path.lstat().st_mtime >= age:
                shutil.rmtree(path) if path.is_dir() else path.unlink()


@contextmanager
def new_folder(target: Path, *, elsewhere: str = ELSEWHERE) -> Iterator[Path]:
    """A folder to write to that takes the place of ``target`` when the block ends without an error, and else vanishes.

    So ``target`` is either complete or as it was. Everybody may read what is in it: safetensors lets only its owner.

    Raises:
        UserError: the disk is full or not writable.
    """
    with disk_errors(target, elsewhere=elsewhere):
        target.parent.mkdir(parents=True, exist_ok=True)
        clear_leftovers(target, age=A_DAY)
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
        clear_leftovers(path, age=A_DAY)
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


def sha256(path: Path) -> str:
    """SHA-256 (hex) of a file's content, read now."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


class Busy(Exception):
    """Another process holds a lock that was not to be waited for."""


@contextmanager
def lock(path: Path, *, target: Path | None = None, wait: bool = True) -> Iterator[None]:
    """Hold a lock between processes; a second process that wants the same result waits for the first.

    What a killed process has left of writing ``target`` (``path``, where it is not given) is removed.

    Raises:
        UserError: the file system has no locks, or the lock's file cannot be written.
        Busy: another process holds the lock, and ``wait`` is False.
    """
    from filelock import FileLock, Timeout

    guard = FileLock(f"{path}.lock")
    with disk_errors(path), _lock_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            guard.acquire(timeout=0)
        except Timeout:
            if not wait:
                raise Busy(path.name) from None
            print(f"Another process is working on {path.name}; waiting for it.", file=sys.stderr, flush=True)
            guard.acquire()
    try:
        clear_leftovers(target or path)
        yield
    finally:
        guard.release()


@contextmanager
def _lock_errors(path: Path) -> Iterator[None]:
    """Turn what filelock raises on a file system without locks, or falls back to there, into one sentence."""
    try:
        with warnings.catch_warnings():
            # Its other lock is a file that a killed process leaves behind, for which everybody would wait for ever.
            warnings.filterwarnings("error", message=".*flock", category=UserWarning)
            yield
    except (NotImplementedError, UserWarning, OSError) as error:
        if isinstance(error, OSError) and error.errno not in _NO_LOCKS:
            raise
        raise UserError(
            f"The file system of {path.parent} has no file locks (flock), by which runs beside each other agree; "
            "choose a folder on another one: outputs_dir=… or, for the cache, HIPLORA_CACHE=…."
        ) from error
