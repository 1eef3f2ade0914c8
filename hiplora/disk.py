"""Atomic writing of files and folders, locks between processes, and disk errors as one sentence. A leaf."""

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
    """The path that a user typed, with ``~`` expanded: no shell expands one after an equals sign."""
    return Path(os.path.expanduser(text))  # leaves an unknown home unchanged, for which Path.expanduser raises


def check_folder(field: str, value: Any) -> None:
    """Refuse a value that is no folder name, such as an empty text; the folder need not exist. Raises UserError."""
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
    """The folder for what can be recomputed (models, SVDs, mini data): ``$HIPLORA_CACHE``, else ``outputs/cache``."""
    return typed_path(os.environ.get("HIPLORA_CACHE") or "outputs/cache")


A_DAY = 86400.0  # seconds; no write takes that long
SEAL = "sha256.json"  # file of digests in a sealed folder
_INTACT: set[tuple[int, int, int]] = set()
_NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP)
FOLDERS = ("outputs_dir", "results_dir")  # a run writes to these and to the cache only
ELSEWHERE = "outputs_dir=…, results_dir=… or, for the cache, HIPLORA_CACHE=…"
_REFUSED = {
    errno.ENOSPC: "the disk is full; free some space",
    errno.EDQUOT: "the disk quota is used up; free some space",
    errno.EFBIG: "the file exceeds the limit on file sizes; raise the limit (ulimit -f)",
    errno.EACCES: "permission denied; choose another folder ({elsewhere})",
    errno.EPERM: "permission denied; choose another folder ({elsewhere})",
    errno.EROFS: "the file system is read-only; choose another folder ({elsewhere})",
    errno.ENOTDIR: "a part of this path is a file, not a folder; choose another folder ({elsewhere})",
    errno.EEXIST: "a part of this path is a file, not a folder; choose another folder ({elsewhere})",
}


@contextmanager
def disk_errors(target: Path, *, elsewhere: str = ELSEWHERE) -> Iterator[None]:
    """A context that turns disk errors (full, no permission, a file in the way) into a UserError about ``target``.

    ``elsewhere`` says which option chooses another folder. Other exceptions pass unchanged.
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
    """The errno of an OSError, or the one in the text of a safetensors error; None for any other exception."""
    if isinstance(error, OSError):
        return error.errno
    safetensors = sys.modules.get("safetensors")  # if it raised the error, it is loaded
    if safetensors is not None and isinstance(error, safetensors.SafetensorError):
        number = re.search(r"\(os error (\d+)\)", str(error))
        return int(number[1]) if number else None
    return None


def seal(folder: Path) -> None:
    """Write the SHA-256 of every file below a folder into it, for :func:`intact` to compare."""
    write_json(folder / SEAL, {"files": {name: sha256(folder / name) for name in _names(folder)}})


def intact(folder: Path) -> bool:
    """Whether a folder holds exactly the files that it was sealed with; files are read once per process."""
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
    """Relative paths of the files below a folder, without hidden ones, which operating systems add."""
    files = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file() and path != folder / SEAL)
    return sorted(path.as_posix() for path in files if not any(part.startswith(".") for part in path.parts))


def clear_leftovers(target: Path, *, age: float = 0.0) -> None:
    """Remove temporary files of ``target`` that killed processes left, if they are at least ``age`` seconds old.

    With age 0, the caller must hold the target's lock: another process may be writing.
    """
    name = re.compile(re.escape(f".{target.name}.") + "[a-z0-9_]{8}")  # tempfile's naming
    if not target.parent.is_dir():
        return
    for path in target.parent.iterdir():
        with suppress(OSError):  # already removed, or owned by another user
            if name.fullmatch(path.name) and time.time() - path.lstat().st_mtime >= age:
                shutil.rmtree(path) if path.is_dir() else path.unlink()


@contextmanager
def new_folder(target: Path, *, elsewhere: str = ELSEWHERE) -> Iterator[Path]:
    """A temporary folder that replaces ``target`` when the block ends without an error, and else is removed.

    So an error in the block leaves ``target`` unchanged. All users may read the files; safetensors alone would allow
    only the owner.

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
    """Refuse a folder that cannot be created or written to, before a result is computed for it; creates nothing.

    Raises:
        UserError: a file is in the way, or there is no permission to write.
    """
    with disk_errors(folder):
        there = next(path for path in (folder, *folder.parents) if path.exists())
        if not there.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        if not os.access(there, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file atomically: even after a crash it is complete, or unchanged (or absent, if it was).

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
    """Write JSON atomically. Raises ValueError for NaN and infinity, which JSON does not define."""
    write_atomically(path, (json.dumps(value, indent=1, allow_nan=False) + "\n").encode())


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file that this project wrote.

    Raises:
        UserError: the file holds no valid JSON object.
    """
    try:
        return json_object(path)
    except ValueError as error:
        raise UserError(f"{path} is not valid JSON ({error}); delete it and type the command again.") from None


def json_object(path: Path) -> dict[str, Any]:
    """The object in any JSON file. Raises ValueError if it holds none."""
    value = json.loads(path.read_text())
    if not isinstance(value, dict):
        raise ValueError(f"it holds a {type(value).__name__}, not an object")
    return value


def sha256(path: Path) -> str:
    """SHA-256 (hex) of a file's content; not cached."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


class Busy(Exception):
    """Another process holds the lock, and the caller does not wait."""


@contextmanager
def lock(path: Path, *, target: Path | None = None, wait: bool = True) -> Iterator[None]:
    """Hold a lock between processes; a second process that needs the same result waits for the first.

    The lock's holder removes temporary files that killed processes left of ``target`` (``path`` if not given).

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
    """A context that turns filelock's errors and its fallback on a file system without locks into a UserError."""
    try:
        with warnings.catch_warnings():
            # Its fallback lock is a file; if its process is killed, the file stays, and all others wait for ever.
            warnings.filterwarnings("error", message=".*flock", category=UserWarning)
            yield
    except (NotImplementedError, UserWarning, OSError) as error:
        if isinstance(error, OSError) and error.errno not in _NO_LOCKS:
            raise
        raise UserError(
            f"The file system of {path.parent} has no file locks (flock), which parallel runs need; "
            "choose a folder on another one: outputs_dir=… or, for the cache, HIPLORA_CACHE=…."
        ) from error
