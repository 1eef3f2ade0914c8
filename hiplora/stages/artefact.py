"""A trained adapter's folder: what the method loads, the native state to go on from, and the digests of both."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hiplora.adapters.card import CARD
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

# Beside PEFT's files: the trained tensors by name and the method's state, to go on from. Snapshots hold the same.
NATIVE = "native.pt"
OPTIMIZER = "optimizer.pt"  # AdamW's state of the last step, where it was to be kept


def snapshot(step: int) -> str:
    """The file of the native state that a training had after one of its steps."""
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
    """Write the adapter's folder in one go: what the method loads, the native states, and the digests of all."""
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


def tensors_digest(native: Mapping[str, Any]) -> str:
    """SHA-256 over names, shapes, types and values of the native state: tensors, not files, so no writer matters."""
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
    """Refuse an adapter's folder that lacks a file, holds one that is not what was written, or is of another training.

    Raises:
        UserError: one sentence that names the folder and what to do.
    """
    check_complete(folder)
    written = json_object(folder / DIGEST)
    if written["tensors"] != record.result.reproducible():
        raise UserError(f"The adapter {folder} was trained anew since this run began; type the same command again.")
    for name, digests in written["files"].items():
        if name == CARD:  # older folders have one among their digests
            continue
        path = folder / name
        if not path.is_file() or sha256(path) not in digests:
            raise UserError(
                f"The adapter {folder} is not complete ({name} is not what was written); delete this folder and type "
                "the command again, which trains it anew."
            )


def native(folder: Path, record: Record, name: str = NATIVE) -> dict[Any, Any]:
    """A native state of an adapter, on the CPU: its own, a snapshot's, or its optimizer's. Raises as :func:`verify`."""
    import torch

    verify(folder, record)
    return torch.load(folder / name, map_location="cpu", weights_only=True)


def lacks_basis(folder: Path) -> bool:
    """Whether an adapter could carry its singular directions and does not; other methods' have no such option."""
    return json_object(folder / ADAPTER_CONFIG).get("save_basis") is False


def add_basis(method: Method, model: PeftModel, folder: Path) -> None:
    """Save a loaded adapter again, with its directions; each file is replaced whole: the folder always loads."""
    options: Any = model.peft_config[next(iter(model.active_adapters))]
    options.save_basis = True
    beside = folder.with_name(f"{folder.name}.basis")  # no lock is held: others may be writing there
    clear_leftovers(beside, age=A_DAY)
    with disk_errors(folder), tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{beside.name}.") as new:
        method.save(model, Path(new))
        # The configuration last: it says that the weights beside it carry the directions.
        saved = [path for path in Path(new).iterdir() if path.name != CARD]
        paths = sorted(saved, key=lambda path: path.name == ADAPTER_CONFIG)
        _write_digest(folder, coming=paths)  # until all are there, the old files and the new ones are right
        for path in paths:
            write_atomically(folder / path.name, path.read_bytes())
        _write_digest(folder)


def _write_digest(folder: Path, coming: Sequence[Path] = ()) -> None:
    """The SHA-256 of every file of an adapter's folder, beside those of the files that will take their place.

    The card is left out: it is written again with every score.
    """
    written = json_object(folder / DIGEST)
    files: dict[str, list[str]] = {}
    for path in [*sorted(folder.iterdir()), *coming]:
        if path.name not in (DIGEST, CARD):
            files.setdefault(path.name, []).append(sha256(path))
    write_json(folder / DIGEST, {**written, "files": files})
