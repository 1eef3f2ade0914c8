"""Reads adapters as exact updates: PEFT's LoRA, DoRA and AdaLoRA, and HiP-LoRA, from disk or the Hub."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from hiplora.adapters.fields import KINDS, LoraFields, check_task, lora_fields
from hiplora.adapters.files import ADAPTER_CONFIG, locate, read_config
from hiplora.adapters.hip import read_hiplora
from hiplora.adapters.lora import lora_updates
from hiplora.adapters.promised import check_promised, linear_layers
from hiplora.adapters.tensors import read_tensors
from hiplora.adapters.trained import Trained, split
from hiplora.adapters.weights import INDEX, SINGLE, Weights
from hiplora.errors import UserError
from hiplora.updates import Update


@dataclass(frozen=True)
class Adapter:
    """An adapter folder: its update per module, its other trained tensors, and the fields that a merge inherits.

    ``notes`` are sentences for the user; ``dropped`` holds the names in ``drop`` that applied.
    """

    label: str
    base: str | None
    revision: str | None
    task_type: str | None
    fan_in_fan_out: bool
    updates: dict[str, Update]
    trained: Trained = field(default_factory=Trained)
    notes: tuple[str, ...] = ()
    dropped: frozenset[str] = frozenset()


def read_adapter(source: str, *, backbone: Path | None = None, drop: Collection[str] = ()) -> Adapter:
    """An adapter, from a folder or the Hub, with its updates in float32.

    Args:
        source: a folder, or a repository as :func:`locate` takes it.
        backbone: folder of the backbone's weights; by default the one that the adapter names, if that is a folder.
            It is needed by DoRA (whose updates are formed from the weights on access) and PiSSA, by HiP-LoRA without a
            saved basis, and if the adapter holds weights of the backbone.
        drop: names of modules to leave out, or names in DROPPABLE.

    Raises:
        UserError: there is no adapter, it is incomplete, its update is not supported, or ``drop`` leaves nothing of it.
    """
    folder = locate(source)
    config = read_config(folder)
    kind = config.get("peft_type")
    if kind != "HIPLORA" and kind not in KINDS:
        raise UserError(_unknown_kind(source, kind))
    check_task(source, config)
    fields = None if kind == "HIPLORA" else lora_fields(source, config)  # before tensors that these fields explain
    weights = _weights(config, backbone)
    factors, trained, dropped = split(source, read_tensors(source, folder), config, weights=weights, drop=drop)
    if not factors and dropped:
        raise UserError(f"--without {','.join(sorted(dropped))} leaves no update of {source}; leave out less of it.")
    updates = _updates(source, folder, fields, factors, weights or backbone)
    if not updates:
        raise UserError(
            f"{source} holds no factors of a low-rank update; the file is incomplete, save or fetch it again."
        )
    built = weights.skeleton if weights else None
    lacking = () if dropped else check_promised(source, config, updates, linear_layers(built) if built else ())
    return Adapter(
        label=source,
        base=config.get("base_model_name_or_path"),
        revision=config.get("revision"),
        task_type=config.get("task_type"),
        fan_in_fan_out=bool(config.get("fan_in_fan_out")),
        updates=dict(sorted(updates.items())),
        trained=trained,
        notes=(*(fields.notes if fields else ()), *lacking),
        dropped=frozenset(dropped),
    )


def _unknown_kind(source: str, kind: object) -> str:
    if kind is None:
        return f'{source} has no peft_type in its {ADAPTER_CONFIG}; write "peft_type": "LORA" there if it is one.'
    return f"{source} is a {kind} adapter; only LORA, ADALORA and HIPLORA adapters can be read."


def _weights(config: Mapping[str, Any], backbone: Path | None) -> Weights | None:
    """The backbone's checkpoint, from the folder given or the one that the adapter names; None if there is none."""
    if backbone is not None and config.get("peft_type") != "HIPLORA":
        return Weights(backbone)
    named = config.get("base_model_name_or_path")
    folder = backbone if backbone is not None else Path(named) if isinstance(named, str) and named else None
    if folder is None or not any((folder / name).is_file() for name in (SINGLE, INDEX)):
        return None
    return Weights(folder)


def _updates(
    source: str, folder: Path, fields: LoraFields | None, factors: Mapping[str, Tensor], backbone: Weights | Path | None
) -> Mapping[str, Update]:
    """The updates of a folder: HiP-LoRA's without ``fields``."""
    if fields is None:
        return read_hiplora(folder, backbone=backbone, tensors=factors)[1]
    return lora_updates(source, factors, fields, weights=backbone if isinstance(backbone, Weights) else None)
