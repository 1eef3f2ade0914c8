"""Sources that were trained elsewhere: an adapter folder, and several adapter folders merged.

A folder is identified by the contents of its configuration and weights, not by its path. Its module names and shapes
are checked against the backbone before anything is computed.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cache, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field

from hiplora import models
from hiplora.adapters.files import HUB, adapter_files, locate, read_config
from hiplora.config import Place, Seed, digest
from hiplora.digests import file_digest
from hiplora.disk import typed_path
from hiplora.errors import UserError
from hiplora.hub import commit
from hiplora.merging.base import DRAWS, Operator
from hiplora.models import Model
from hiplora.stages.base import Job, Loaded, Source

if TYPE_CHECKING:
    from hiplora.adapters.reading import Adapter
    from hiplora.updates import Update

LONGEST = 60  # characters of a label in a file name


class Folder(Source):
    """An adapter as PEFT or this project saves it: a folder, or ``owner/name[@revision][/folder]`` on the Hub.

    ``trained_on`` is the benchmark that its Retain leaves out, or None if it was trained on none of the four.
    """

    kind: ClassVar[str] = "folder"

    model: Model
    path: Annotated[str, Place]
    trained_on: Annotated[str | None, Place] = None

    @property
    def role(self) -> str:
        return "adapter"

    @property
    def backbone(self) -> Model:
        return self.model

    @property
    def folder(self) -> Path:
        """The local folder; an adapter on the Hub is downloaded first."""
        return _fetched(self.path)

    def reads(self) -> dict[str, str]:
        return {"backbone": models.identity(self.model), "adapter": self.content()}

    def content(self) -> str:
        """Digest over the names and contents of the files that determine the adapter."""
        return digest([[path.name, file_digest(path)] for path in adapter_files(self.folder)])

    def name(self) -> str:
        return f"folder-{_safe(self.label)}"

    @property
    def label(self) -> str:
        """Its name among other adapters: the last part of its path."""
        return Path(self.path).name

    def subject(self) -> tuple[str, str]:
        return f"the adapter {self.path}", "it has diverged, or belongs to another backbone: name that one with model="

    def check(self) -> None:
        """Refuse an adapter that does not fit the backbone; only the backbone's configuration is read.

        A GGUF's header serves before its conversion. A backbone on the Hub must have been downloaded, or nothing is
        checked. Raises UserError.
        """
        from hiplora.adapters.fields import check_fields
        from hiplora.adapters.fitting import check_fits, linear_shape
        from hiplora.adapters.skeleton import skeleton

        check_fields(self.path, read_config(self.folder))
        folder = models.checkpoint(self.model)
        if folder is None:
            self._check_header()
            return
        built = skeleton(folder)
        if built is not None:
            own = {name: linear_shape(each) or type(each).__name__ for name, each in built.modules.items()}
            self._check_shapes(own, self._factors())  # first: the adapter of another backbone seems incomplete
        adapter = self.read()
        if built is not None:
            check_fits(adapter, built.modules, models.called(self.model))

    def _check_header(self) -> None:
        """Compare the modules that a GGUF's header knows; others wait for its conversion."""
        from hiplora.adapters.promised import check_promised

        updates = self._factors()
        own = models.matrices(self.model, updates)
        known = {name: each for name, each in updates.items() if re.sub(r"\.\d+\.", ".0.", name, count=1) in own}
        if known:
            self._check_shapes(own, known)
            check_promised(self.path, read_config(self.folder), known, own)

    def _factors(self) -> dict[str, tuple[int, ...]]:
        """The shape (out, in) of each update, by module."""
        from hiplora.adapters.lora import factor_shapes
        from hiplora.adapters.tensors import read_tensors

        return factor_shapes(read_tensors(self.path, self.folder))

    def _check_shapes(self, own: Mapping[str, Any], updates: Mapping[str, tuple[int, ...]]) -> None:
        from hiplora.adapters.fitting import check_shapes

        base = read_config(self.folder).get("base_model_name_or_path")
        check_shapes(self.path, base, updates, own, models.called(self.model))

    def read(self) -> Adapter:
        """The adapter in the folder; read once and kept in memory."""
        return _read(self.path, self.content(), models.checkpoint(self.model))

    def updates(self) -> dict[str, Update]:
        """ΔW of every matrix."""
        return self.read().updates

    @contextmanager
    def on(self, backbone: models.Backbone, job: Job) -> Iterator[Loaded]:
        """The backbone with the update attached and fully trained modules swapped in; no weight is overwritten."""
        adapter = self.read()
        with _on(backbone, self.model, [adapter], adapter.updates, adapter.trained):
            yield Loaded(backbone.model, _report(adapter))


class MergedFolders(Source):
    """Adapter folders of one backbone, merged. ``seed`` seeds the operator's draws; None if it draws nothing."""

    kind: ClassVar[str] = "merged_folders"

    adapters: Annotated[tuple[Folder, ...], Field(strict=False, min_length=2)]
    operator: Operator
    seed: Seed | None

    @property
    def role(self) -> str:
        return "merged"

    @property
    def backbone(self) -> Model:
        return self.adapters[0].model

    def reads(self) -> dict[str, str]:
        contents = {f"adapter {number}": each.content() for number, each in enumerate(self.adapters, start=1)}
        return {"backbone": models.identity(self.backbone), **contents}

    def name(self) -> str:
        calibration = [] if self.operator.calibration == "none" else [self.operator.calibration]
        return "-".join(["folders", self.operator.name, *calibration, _safe("+".join(self._names()))])

    def _names(self) -> list[str]:
        return [each.label for each in self.adapters]

    def subject(self) -> tuple[str, str]:
        return f"the merge={self.operator.name} of {', '.join(self._names())}", "choose another operator"

    def check(self) -> None:
        from hiplora.merging.checks import refuse_dense

        self.operator.check_adapters(len(self.adapters))
        for each in self.adapters:
            each.check()
            if models.checkpoint(each.model) is not None:
                for name, update in each.updates().items():
                    refuse_dense(self.operator, each.path, name, update)

    @contextmanager
    def on(self, backbone: models.Backbone, job: Job) -> Iterator[Loaded]:
        """The backbone with the merged update attached; modules that several adapters trained in full are averaged."""
        import torch

        from hiplora.merging import apply
        from hiplora.merging.together import complete, trained_together

        started = time.perf_counter()
        adapters = [_numbered(number, each) for number, each in enumerate(self.adapters, start=1)]
        drawn = digest({"draws": DRAWS, "seed": self.seed, "adapters": [each.content() for each in self.adapters]})
        generator = None if self.seed is None else torch.Generator().manual_seed(int(drawn, 16))
        updates, unadapted = complete(adapters)
        trained, notes = trained_together(adapters)
        merged = apply(self.operator, updates, generator=generator, labels=[each.label for each in adapters])
        with _on(backbone, self.backbone, adapters, merged.updates, trained):
            report = {**merged.report, "seconds": round(time.perf_counter() - started, 2)}
            own = [note for each in adapters for note in each.notes]
            more = {"trained_beside": notes, "unadapted": unadapted, "notes": own}
            yield Loaded(backbone.model, report | {name: value for name, value in more.items() if value})


def _numbered(number: int, folder: Folder) -> Adapter:
    """The adapter with a label, in its notes too, that holds no path of this machine.

    The number keeps labels apart, as two folders may have the same name.
    """
    adapter = folder.read()
    label = f"{number} ({Path(adapter.label).name})"
    return replace(adapter, label=label, notes=tuple(note.replace(adapter.label, label) for note in adapter.notes))


@contextmanager
def _on(
    backbone: models.Backbone, model: Model, adapters: Sequence[Adapter], updates: Any, trained: Any
) -> Iterator[None]:
    """Puts updates and fully trained values on the loaded backbone, after checking every adapter against it."""
    import torch

    from hiplora.adapters.fitting import check_fits
    from hiplora.merging.attached import attached, replaced

    modules = dict(backbone.model.named_modules())
    for adapter in adapters:
        check_fits(adapter, modules, models.called(model))
    with replaced(backbone.model, trained), attached(backbone.model, updates, dtype=torch.float32):
        yield


def _report(adapter: Adapter) -> dict[str, Any]:
    """The record's report on an adapter: number of matrices, modules trained in full, and notes for the reader."""
    beside = [*adapter.trained.tensors, *(f"{module} (tokens)" for module in adapter.trained.tokens)]
    notes = [note.replace(adapter.label, Path(adapter.label).name) for note in adapter.notes]  # no machine's paths
    found = {"matrices": len(adapter.updates), "trained_beside": beside, "notes": notes}
    return {name: value for name, value in found.items() if value}


def named_backbone(path: str) -> tuple[str, str | None]:
    """The backbone that an adapter's configuration names, and its revision or None.

    Raises:
        UserError: it names none.
    """
    config = read_config(_fetched(path))
    name, revision = config.get("base_model_name_or_path"), config.get("revision")
    if not isinstance(name, str) or not name:
        raise UserError(
            f"{path} names no backbone (base_model_name_or_path in its adapter_config.json); type model=folder "
            "model.path=DIR, the folder of the model that it was trained on."
        )
    return name, revision if isinstance(revision, str) else None


@cache
def _fetched(path: str) -> Path:
    """The folder of an adapter; one on the Hub is downloaded."""
    return locate(_pinned(path))


def _pinned(path: str) -> str:
    """The path of an adapter; on the Hub with the commit in place of a branch, so that all runs read the same."""
    hub = None if typed_path(path).is_dir() else HUB.fullmatch(path)
    if hub is None:
        return path
    found = commit(hub["name"], hub["revision"], kind="model", field="adapter.revision")
    return "/".join(filter(None, [f"{hub['name']}@{found}", hub["folder"]]))


@lru_cache(maxsize=8)
def _read(path: str, content: str, backbone: Path | None) -> Adapter:
    from hiplora.adapters.reading import read_adapter

    return read_adapter(_pinned(path), backbone=backbone)


def _safe(name: str) -> str:
    """The name with characters that are unsafe in file names replaced, cut to ``LONGEST``."""
    return re.sub(r"[^\w.+-]+", "_", name)[:LONGEST]
