"""Writes a merge: its report and card, and a backbone with the merged updates folded in."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hiplora.adapters.card import UNSCORED, Card, base_in_card, hub_name, write_card
from hiplora.adapters.results import MARKER
from hiplora.adapters.trained import Trained
from hiplora.adapters.weights import INDEX, Weights, opened
from hiplora.adapters.writing import dtype_name, refuse_overflow
from hiplora.disk import json_object
from hiplora.errors import UserError
from hiplora.merging.arguments import option_table
from hiplora.updates import Update

REPORT = "merge_report.json"
# Weight files of a backbone that are not copied beside the new ones.
WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".gguf", ".h5", ".msgpack", ".onnx")
COMMAND = "hiplora-merge"


def write_folded(
    updates: Mapping[str, Update],
    backbone: Path,
    out: Path,
    *,
    trained: Trained | None = None,
    dtype: torch.dtype | None = None,
) -> dict[str, Any]:
    """Copy a backbone folder to ``out`` with W + ΔW in place of W, one file and one update at a time.

    Every tensor keeps the dtype in which it is stored; with ``dtype`` all floating-point tensors get that one, and
    config.json names it.

    ΔW is transposed if W is stored so. A head tied to the embedding becomes a weight of its own if the two now differ.
    ``trained`` values replace the backbone's.

    Returns:
        The number of updates as ``folded`` and the untied heads, if any, as ``untied``; for the report.

    Raises:
        UserError: the backbone lacks a module, or has it quantised or in another shape; a sum overflows the dtype.
    """
    weights, trained = Weights(backbone), trained or Trained()
    edits = _Edits(weights, dtype)
    for name in updates:
        edits.add(name, updates)
    for parameter, tensor in trained.tensors.items():
        edits.replace(parameter, tensor, tying=trained.shared(parameter))
    for name, rows in trained.tokens.items():
        edits.rows(name, rows)
    out.mkdir(parents=True, exist_ok=True)
    for shard in sorted(set(weights.files.values())):
        _fold_file(shard, out / shard.name, edits, dtype=dtype)
    for path in backbone.iterdir():
        other = path.suffix in WEIGHTS or (path.name.endswith(".index.json") and path.name != INDEX)
        if path.is_file() and not other and path.name not in (MARKER, REPORT):
            shutil.copy2(path, out / path.name)
    edits.finish(out)
    if dtype is not None:
        _write_dtype(out, dtype)
    return {"folded": len(updates), **({"untied": edits.untied} if edits.untied else {})}


class _Edits:
    """The changes of a fold: for every stored tensor, the tensors that are written in its place."""

    def __init__(self, weights: Weights, dtype: torch.dtype | None) -> None:
        self._weights, self._dtype = weights, dtype
        self._by_source: dict[str, dict[str, Callable[[Tensor], Tensor]]] = {}
        self._added: dict[str, str] = {}  # new name → the stored one
        self.untied: list[str] = []

    def add(self, module: str, updates: Mapping[str, Update]) -> None:
        """Add ΔW to the weight of a module. Raises UserError if the backbone lacks it, or on writing if it misfits."""
        self._weights.shape(module)

        def change(weight: Tensor) -> Tensor:
            update = updates[module]  # computed here, since all dense ones together may not fit into memory
            turned = self._weights.transposed(module, update.shape)
            return _sum(weight, update, turned, self._dtype or weight.dtype)

        self._put(f"{module}.weight", change)

    def replace(self, parameter: str, tensor: Tensor, *, tying: bool) -> None:
        """Replace a parameter; those tied to it follow only if ``tying``. Raises UserError if it does not fit."""
        stored = self._check(parameter, tuple(tensor.shape))
        self._put(parameter, lambda weight: tensor.to(weight.dtype).contiguous())
        for other in [] if tying else self._tied_to(stored):
            if other in self._weights.files:  # stored apart, so it keeps its value
                self._untie(other)
            elif other not in self._by_source.get(stored, {}):
                self._put(other, torch.clone)

    def rows(self, module: str, rows: Mapping[int, Tensor]) -> None:
        """Replace rows of an embedding and of what is tied to it, as PEFT does. Raises UserError if they do not fit."""
        values = torch.stack([*rows.values()])
        stored = self._check(f"{module}.weight", (max(rows) + 1, values.shape[1]), least=True)

        def change(weight: Tensor) -> Tensor:
            return weight.index_copy(0, torch.tensor([*rows]), values.to(weight.dtype))

        for name in (stored, *(other for other in self._tied_to(stored) if other in self._weights.files)):
            self._by_source.setdefault(name, {})[name] = change

    def _check(self, parameter: str, shape: tuple[int, ...], *, least: bool = False) -> str:
        stored, held = self._weights.stored_name(parameter), self._weights.parameter(parameter)
        own = None if held is None else tuple(held.shape)
        fits = own is not None and (own == shape or (least and own[1:] == shape[1:] and own[0] >= shape[0]))
        if stored is None or not fits:
            raise UserError(
                f"{parameter} is {own or 'absent'} in the backbone and {shape} in the adapters, so it cannot be "
                f"folded in; write an adapter, or add --without {parameter.removesuffix('.weight')}."
            )
        return stored

    def _tied_to(self, stored: str) -> list[str]:
        """The other parameters that are tied to a stored one."""
        model = self._weights.skeleton
        if model is None:
            return []
        return [name for name, shared in model.tied.items() if stored in model.names(shared) and name != stored]

    def _put(self, name: str, change: Callable[[Tensor], Tensor]) -> None:
        weights, model = self._weights, self._weights.skeleton
        stored = weights.stored_name(name)
        assert stored is not None  # its shape has been read
        names = model.names(name) if model else (name,)
        if stored not in names:  # it is tied, and the checkpoint stores only the other one
            self._by_source.setdefault(stored, {stored: lambda weight: weight})[name] = change
            self._added[name] = stored
        else:
            self._by_source.setdefault(stored, {})[stored] = change
        if model and any(each in model.tied for each in names):
            self._untie(name)

    def _untie(self, name: str) -> None:
        if name not in self.untied:
            self.untied.append(name)

    def of(self, stored: str, tensor: Tensor) -> dict[str, Tensor]:
        """The tensors, by name, that are written in place of a stored one."""
        return {name: change(tensor) for name, change in self._by_source.get(stored, {stored: _same}).items()}

    def finish(self, out: Path) -> None:
        """Add new tensors to the index, and set ``tie_word_embeddings`` to false for untied heads."""
        if (out / INDEX).is_file() and self._added:
            index = json_object(out / INDEX)
            index["weight_map"] |= {name: index["weight_map"][stored] for name, stored in self._added.items()}
            (out / INDEX).write_text(json.dumps(index, indent=2) + "\n")
        if self.untied:
            config = json_object(out / "config.json")
            for part in (config, config.get("text_config")):
                if isinstance(part, dict) and (part is config or "tie_word_embeddings" in part):
                    part["tie_word_embeddings"] = False
            (out / "config.json").write_text(json.dumps(config, indent=2) + "\n")


def _same(weight: Tensor) -> Tensor:
    return weight


def _sum(weight: Tensor, update: Update, turned: bool, dtype: torch.dtype) -> Tensor:
    """W + ΔW in the layout of W, rounded once."""
    change = update.dense().to(weight.device)
    wide = weight if weight.dtype == torch.float64 else weight.float()
    return (wide + (change.mT if turned else change)).to(dtype).contiguous()


def _write_dtype(out: Path, dtype: torch.dtype) -> None:
    """Write the dtype into config.json, and the size of the weights into their index."""
    config, index = out / "config.json", out / INDEX
    if config.is_file():
        raw = json_object(config)
        names = [name for name in ("dtype", "torch_dtype") if name in raw] or ["torch_dtype"]
        config.write_text(json.dumps(raw | dict.fromkeys(names, dtype_name(dtype)), indent=2) + "\n")
    if index.is_file():
        raw = json_object(index)
        size = sum(path.stat().st_size - header(path) for path in out.glob("*.safetensors"))
        raw["metadata"] = {**raw.get("metadata", {}), "total_size": size}
        index.write_text(json.dumps(raw, indent=2) + "\n")


def header(path: Path) -> int:
    """Bytes of a safetensors file before its tensors: 8 bytes of length, then a JSON of that length."""
    with path.open("rb") as file:
        return 8 + int.from_bytes(file.read(8), "little")


def _fold_file(source: Path, target: Path, edits: _Edits, *, dtype: torch.dtype | None) -> None:
    from safetensors.torch import save_file

    tensors: dict[str, Tensor] = {}
    with opened(source) as handle:
        for key in handle.keys():  # noqa: SIM118
            tensors |= edits.of(key, handle.get_tensor(key))
    if dtype is not None:
        tensors = {key: value.to(dtype) if value.is_floating_point() else value for key, value in tensors.items()}
    for key, value in tensors.items():
        refuse_overflow(key, value)
    save_file(tensors, target, metadata={"format": "pt"})


def write_merge_card(report: Mapping[str, Any], folder: Path) -> None:
    """Write the card of a merge: inputs, backbone, operator, options; no scores, because none were measured."""
    inputs = [Path(each).resolve().name if Path(each).is_dir() else str(each) for each in report["inputs"]]
    shown = ("operator", "calibration", *option_table(), "seed", "rank", "relative_error", "dtype", "folded", "untied")
    base = report.get("base")
    named = {f"Adapter {number}": f"`{each}`" for number, each in enumerate(inputs, start=1)}
    named |= {} if base is None else {"Backbone": f"`{base if hub_name(base) else Path(base).name}`"}
    settings = {name: report[name] for name in shown if report.get(name) is not None}
    what = "A backbone with the merge of these adapters in its weights" if "folded" in report else "A merge of adapters"
    write_card(
        folder,
        Card(
            title=f"{report.get('operator', 'merge')} of {len(inputs)} adapters",
            about=f"{what}, written by `{COMMAND}`. All options and errors are in `{REPORT}`.{UNSCORED}",
            settings=named | settings,
            base=hub_name(base) or _agreed(report["inputs"]) or base,
            tags=("hiplora", "merge"),
        ),
    )


def _agreed(inputs: Sequence[str]) -> str | None:
    """The backbone's name on the Hub if the cards of all adapter folders have the same one."""
    found = {base_in_card(Path(each)) for each in inputs}
    return found.pop() if len(found) == 1 else None


def write_report(report: Mapping[str, Any], out: Path) -> None:
    """Write ``merge_report.json`` beside the result: operator, options, errors and inputs."""
    (out / REPORT).write_text(json.dumps(report, indent=2) + "\n")
