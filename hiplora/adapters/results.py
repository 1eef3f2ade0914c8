"""Folders that our commands write: replaced only where it is sure that a command of ours wrote what they hold.

Every result carries ``hiplora_output.json``: the command, and the SHA-256 of each file. A folder whose files are still
those may be replaced by the same command. Any other folder that holds something is refused.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from hiplora.disk import disk_errors, json_object, sha256
from hiplora.errors import UserError

MARKER = "hiplora_output.json"
_PARTIAL = ".hiplora-partial-"  # what a killed command leaves behind under this name is in nobody's way


@contextmanager
def result_folder(target: Path, *, command: str, option: str, inputs: Sequence[Path] = ()) -> Iterator[Path]:
    """A folder to write to, whose files are those of ``target`` when the block ends without an error.

    So ``target`` is either complete or as it was. A link is followed, and a folder that is there stays the same folder
    (it may be the current one, or a mount). Raises UserError as :func:`check_result`, and where the disk refuses.
    """
    check_result(target, command=command, option=option, inputs=inputs)
    place = target.resolve()
    with disk_errors(target, elsewhere=option):
        beside = place if place.is_dir() else place.parent
        beside.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=beside, prefix=_PARTIAL))
        try:
            yield temporary
            _mark(temporary, command)
            check_result(target, command=command, option=option, inputs=inputs)  # hours may have passed
            _install(temporary, place)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def check_result(target: Path, *, command: str, option: str, inputs: Sequence[Path] = ()) -> None:
    """Refuse a place where writing would lose something.

    Raises:
        UserError: ``target`` is a file, one of the inputs, or holds what this command cannot be sure to have written.
    """
    place = _resolved(target, option)
    if any(place == folder.resolve() for folder in inputs):
        raise UserError(f"{option} {target} is one of the inputs; write the result to another folder.")
    if place.exists() and not place.is_dir():
        raise UserError(f"{option} {target} is a file; give a folder, which is created where there is none.")
    foreign = _foreign(place, command) if place.is_dir() else None
    if foreign:
        raise UserError(f"{option} {target} {foreign}; give another folder or an empty one, or delete it first.")


def _resolved(target: Path, option: str) -> Path:
    try:
        return target.resolve()
    except (OSError, RuntimeError) as error:  # RuntimeError is what a circle of links gives
        raise UserError(f"{option} {target} is a link that leads nowhere ({error}); give another folder.") from None


def _foreign(place: Path, command: str) -> str | None:
    """What in a folder this command did not write, as the middle of a sentence; None where there is nothing."""
    held = sorted(path for path in place.iterdir() if not path.name.startswith(_PARTIAL))
    if not held:
        return None
    try:
        marker = json_object(place / MARKER)
        author, files = marker["command"], dict(marker["files"])
    except (OSError, ValueError, KeyError, TypeError):
        return f"holds something else than a result of {command} ({held[0].name})"
    if author != command:
        return f"holds a result of {author}, not of {command}"
    for path in held:
        if path.name == MARKER:
            continue
        if path.name not in files:
            return f"holds something else beside a result of {command} ({path.name})"
        if path.is_symlink() or not path.is_file() or sha256(path) != files[path.name]:
            return f"holds something else than what {command} wrote: {path.name} was changed since"
    return None


def _mark(folder: Path, command: str) -> None:
    files = {path.name: sha256(path) for path in sorted(folder.iterdir()) if path.name != MARKER}
    (folder / MARKER).write_text(json.dumps({"command": command, "files": files}, indent=1) + "\n")
    for path in folder.iterdir():
        path.chmod(0o644)  # safetensors lets only the owner read its files
    folder.chmod(0o755)


def _install(folder: Path, place: Path) -> None:
    """Move the files to their place; the marker goes first of the old ones and comes last of the new ones."""
    if folder.parent == place.parent:
        folder.rename(place)  # fails where somebody else has filled a folder of that name meanwhile
        return
    (place / MARKER).unlink(missing_ok=True)
    for path in place.iterdir():
        if not path.name.startswith(_PARTIAL):
            path.unlink()
    for path in sorted(folder.iterdir(), key=lambda path: path.name == MARKER):
        os.replace(path, place / path.name)
