"""A trained adapter's folder: the files the method loads, the native state to train on from, and digests of both."""

from __future__ import annotations

import hashlib
import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hiplora.adapters.card import CARD, SET_ASIDE, changed_card
from hiplora.adapters.files import ADAPTER_CONFIG, check_complete
from hiplora.disk import (
    A_DAY,
    clear_leftovers,
    disk_errors,
    json_object,
    new_folder,
    sha256,
    write_atomically,
    write_json,
)
from hiplora.errors import UserError
from hiplora.methods.base import Method
from hiplora.stages.record import Record
from hiplora.stages.store import DIGEST

if TYPE_CHECKING:
    from peft import PeftModel

# Beside PEFT's files: the trained tensors by name and the method's state, to train on from. Snapshots hold the same.
NATIVE = "native.pt"
CARDS = (CARD, SET_ASIDE)  # not covered by the digests
OPTIMIZER = "optimizer.pt"  # AdamW's state after the last step, if the training keeps it


def snapshot(step: int) -> str:
    """File name of the native state after a step of the training."""
    return f"snapshot-{step:08d}.pt"


def save(
    method: Method,
    model: PeftModel,
    target: Path,
    *,
    native: Mapping[str, Any],
    tensors: str,
    snapshots: Mapping[int, Mapping[str, Any]] | None = None,
    optimizer: Mapping[Any, Any] | None = None,
) -> None:
    """Write the adapter's folder at once: the files the method loads, the native states, and the digests of all.

    ``native`` is the final state, ``snapshots`` maps a step to the state after it, ``optimizer`` is AdamW's state;
    ``tensors`` is the digest of ``native`` (:func:`tensors_digest`). The folder gets no card yet; the one of the folder
    that is replaced is kept under another name if somebody has changed it.
    """
    import torch

    with new_folder(target) as folder:
        method.save(model, folder)
        states: dict[str, Any] = {
            NATIVE: native,
            **{snapshot(step): state for step, state in (snapshots or {}).items()},
        }
        states |= {} if optimizer is None else {OPTIMIZER: optimizer}
        for name, state in states.items():
            torch.save(state, folder / name)
        write_json(folder / DIGEST, {"tensors": tensors, "files": {}})
        _write_digest(folder)
        (folder / CARD).unlink(missing_ok=True)  # PEFT's template
        _set_aside(target, folder)


def _set_aside(old: Path, new: Path) -> None:
    """Keep the card of a folder that is about to be replaced, if somebody has changed it, or one kept before."""
    changed = changed_card(old)
    if changed is not None:
        print(f"note: the changed card of this adapter is now {old / SET_ASIDE}", file=sys.stderr)
    elif (old / SET_ASIDE).is_file():
        changed = (old / SET_ASIDE).read_bytes()
    if changed is not None:
        (new / SET_ASIDE).write_bytes(changed)


def tensors_digest(native: Mapping[str, Any]) -> str:
    """SHA-256 over names, shapes, types and values of the native state; the file format does not enter."""
    import torch

    total = hashlib.sha256()

    def add(name: str, value: Any) -> None:
        if isinstance(value, torch.Tensor):
            plain = value.detach().cpu().contiguous()
            total.update(f"{name} {plain.dtype} {list(plain.shape)}".encode())
            total.update(plain.reshape(-1).view(torch.uint8).numpy().data)
        elif isinstance(value, Mapping):
            for key in sorted(value, key=str):
                add(f"{name}/{key}", value[key])
        else:
            total.update(f"{name} {json.dumps(value)}".encode())

    add("", native)
    return total.hexdigest()


def verify(folder: Path, record: Record) -> None:
    """Refuse an adapter's folder with a missing or altered file, or from another training than the record's.

    Raises:
        UserError: names the folder and what to do.
    """
    check_complete(folder)
    written = json_object(folder / DIGEST)
    if written["tensors"] != record.result.reproducible():
        raise UserError(f"The adapter {folder} was trained anew since this run began; type the same command again.")
    for name, digests in written["files"].items():
        if name in CARDS:  # older folders list its digest, but it is rewritten with every score
            continue
        path = folder / name
        if not path.is_file() or sha256(path) not in digests:
            raise UserError(
                f"The adapter {folder} is not complete ({name} is not what was written); delete this folder and type "
                "the command again, which trains it anew."
            )


def native(folder: Path, record: Record, name: str = NATIVE) -> dict[Any, Any]:
    """A saved state of an adapter, on the CPU: its final native state, a snapshot, or the optimizer's state.

    ``name`` is the file. Raises as :func:`verify`.
    """
    import torch

    verify(folder, record)
    return torch.load(folder / name, map_location="cpu", weights_only=True)


def lacks_basis(folder: Path) -> bool:
    """Whether an adapter could carry its singular directions and does not; False for methods without that option."""
    return json_object(folder / ADAPTER_CONFIG).get("save_basis") is False


def add_basis(method: Method, model: PeftModel, folder: Path) -> None:
    """Save a loaded adapter again with its singular directions; files are replaced whole: the folder always loads."""
    options: Any = model.peft_config[next(iter(model.active_adapters))]
    options.save_basis = True
    beside = folder.with_name(f"{folder.name}.basis")  # no lock is held: others may be writing there
    clear_leftovers(beside, age=A_DAY)
    with disk_errors(folder), tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{beside.name}.") as new:
        method.save(model, Path(new))
        # The configuration comes last, because it says that the weights beside it carry the directions.
        saved = [path for path in Path(new).iterdir() if path.name != CARD]
        paths = sorted(saved, key=lambda path: path.name == ADAPTER_CONFIG)
        _write_digest(folder, coming=paths)  # until all are replaced, old and new files both count as intact
        for path in paths:
            write_atomically(folder / path.name, path.read_bytes())
        _write_digest(folder)


def _write_digest(folder: Path, coming: Sequence[Path] = ()) -> None:
    """Write the SHA-256 of every file of an adapter's folder, and of the ``coming`` files that will replace them.

    The card is left out: it is rewritten with every score.
    """
    written = json_object(folder / DIGEST)
    files: dict[str, list[str]] = {}
    for path in [*sorted(folder.iterdir()), *coming]:
        if path.name not in (DIGEST, *CARDS):
            files.setdefault(path.name, []).append(sha256(path))
    write_json(folder / DIGEST, {**written, "files": files})
