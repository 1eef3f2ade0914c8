"""Output folders of commands, replaced only if they hold an unchanged result of the same command.

Every result holds ``hiplora_output.json`` with the command and the SHA-256 of each file. The same command may replace a
folder whose files still match. Any other folder that is not empty is refused.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from hiplora.adapters.card import CARD, changed_card
from hiplora.disk import disk_errors, json_object, sha256
from hiplora.errors import UserError

MARKER = "hiplora_output.json"
_PARTIAL = ".hiplora-partial-"  # leftovers of a killed command under this name are ignored


@contextmanager
def result_folder(target: Path, *, command: str, option: str, inputs: Sequence[Path] = ()) -> Iterator[Path]:
    """A temporary folder to write to; its files move to ``target`` when the block ends without an error.

    So after an error in the block, ``target`` is unchanged. A link is followed, and an existing folder stays the same
    directory (it may be the current one, or a mount).

    Raises:
        UserError: as :func:`check_result`, or the disk cannot be written.
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
            check_result(target, command=command, option=option, inputs=inputs)  # the block may have taken hours
            _install(temporary, place)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def check_result(target: Path, *, command: str, option: str, inputs: Sequence[Path] = ()) -> None:
    """Refuse an output folder if writing there could lose files.

    Raises:
        UserError: ``target`` is a file or one of the inputs, or holds anything but an unchanged result of ``command``.
    """
    place = _resolved(target, option)
    if any(place == folder.resolve() for folder in inputs):
        raise UserError(f"{option} {target} is one of the inputs; write the result to another folder.")
    if place.exists() and not place.is_dir():
        raise UserError(f"{option} {target} is a file; give a folder, which is created if it does not exist.")
    foreign = _foreign(place, command) if place.is_dir() else None
    if foreign:
        raise UserError(f"{option} {target} {foreign}; give another folder or an empty one, or delete it first.")


def _resolved(target: Path, option: str) -> Path:
    try:
        return target.resolve()
    except (OSError, RuntimeError) as error:  # a loop of links raises RuntimeError
        raise UserError(f"{option} {target} is a link that leads nowhere ({error}); give another folder.") from None


def _foreign(place: Path, command: str) -> str | None:
    """What this command did not write in a folder, as the middle of a sentence; None if there is nothing."""
    held = sorted(path for path in place.iterdir() if not path.name.startswith(_PARTIAL))
    if not held:
        return None
    try:
        marker = json_object(place / MARKER)
        author, files = marker["command"], dict(marker["files"])
    except (OSError, ValueError, KeyError, TypeError):
        return f"holds something other than a result of {command} ({held[0].name})"
    if author != command:
        return f"holds a result of {author}, not of {command}"
    for path in held:
        if path.name == MARKER:
            continue
        if path.name == CARD and changed_card(place) is None:
            continue  # scores are put into it later
        if path.name not in files:
            return f"holds another file beside a result of {command} ({path.name})"
        if path.is_symlink() or not path.is_file() or sha256(path) != files[path.name]:
            return f"holds a result of {command} in which {path.name} was changed since"
    return None


def _mark(folder: Path, command: str) -> None:
    files = {path.name: sha256(path) for path in sorted(folder.iterdir()) if path.name != MARKER}
    (folder / MARKER).write_text(json.dumps({"command": command, "files": files}, indent=1) + "\n")
    for path in folder.iterdir():
        path.chmod(0o644)  # safetensors lets only the owner read its files
    folder.chmod(0o755)


def _install(folder: Path, place: Path) -> None:
    """Move the files to their place. The old marker is deleted first, and the new one arrives last."""
    if folder.parent == place.parent:
        folder.rename(place)  # fails if another process has filled a folder of that name meanwhile
        return
    (place / MARKER).unlink(missing_ok=True)
    for path in place.iterdir():
        if not path.name.startswith(_PARTIAL):
            path.unlink()
    for path in sorted(folder.iterdir(), key=lambda path: path.name == MARKER):
        os.replace(path, place / path.name)
