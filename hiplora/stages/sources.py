"""Sources made here: the backbone, a trained adapter (as saved, scaled, or a snapshot), and trained adapters merged."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field

from hiplora import models
from hiplora.config import Fraction, Neutral, Scale, digest
from hiplora.errors import UserError
from hiplora.merging.base import DRAWS, Operator
from hiplora.models import Model
from hiplora.stages.base import Job, Loaded, Source, Stage
from hiplora.stages.train import Train

if TYPE_CHECKING:
    from hiplora.updates import Update

Norm = Annotated[float, Field(gt=0)]  # Frobenius norm over all matrices
KEPT = 12  # adapters whose updates stay in memory: four tasks with three training seeds each
KEPT_BYTES = 16 * 2**30  # and fewer where they take more than this: a dense update of an 8B model takes 5 GiB


class Backbone(Source):
    """The unadapted backbone: the reference of every Retain."""

    kind: ClassVar[str] = "backbone"

    model: Model

    @property
    def backbone(self) -> Model:
        return self.model

    def reads(self) -> dict[str, str]:
        return {"backbone": models.identity(self.model)}

    def name(self) -> str:
        return f"backbone-{self.model.label}"

    def subject(self) -> tuple[str, str]:
        return f"the backbone {self.model.label}", "check its weights, or try model.dtype=float32"

    @contextmanager
    def on(self, backbone: models.Backbone, job: Job) -> Iterator[Loaded]:
        """The model as it is."""
        yield Loaded(backbone.model)


class Adapted(Source):
    """A trained adapter as it was saved."""

    kind: ClassVar[str] = "adapter"

    train: Train

    @property
    def backbone(self) -> Model:
        return self.train.model

    def made_from(self) -> tuple[Stage, ...]:
        return (self.train,)

    def name(self) -> str:
        return self.train.name()

    def subject(self) -> tuple[str, str]:
        train = self.train
        words = f"the adapter {train.id} ({train.method.name}, {train.task.name}, seed {train.seed})"
        return words, "it has diverged: lower training.lr, which trains another adapter"

    @contextmanager
    def on(self, backbone: models.Backbone, job: Job) -> Iterator[Loaded]:
        """The adapter from its folder, ready to be evaluated."""
        with self.train.on(backbone, job) as model:
            yield Loaded(model)


class Scaled(Source):
    """A trained adapter with its update multiplied by ``scale`` after training: W + c ΔW."""

    kind: ClassVar[str] = "scaled"

    of: Train
    scale: Scale

    @property
    def role(self) -> str:
        return "adapter"

    @property
    def train(self) -> Train:
        return self.of

    @property
    def backbone(self) -> Model:
        return self.of.model

    def made_from(self) -> tuple[Stage, ...]:
        return (self.of,)

    def name(self) -> str:
        return f"{self.of.name()}-x{self.scale:g}"

    def subject(self) -> tuple[str, str]:
        words, remedy = Adapted(train=self.of).subject()
        return f"{words}, scaled by {self.scale:g}", f"{remedy}; or scale it by less"

    def updates(self, backbone: models.Backbone, job: Job) -> dict[str, Update]:
        """Module name → c ΔW; ΔW is read once for all scales."""
        return scaled(trained_updates(self.of, backbone, job), self.scale)

    @contextmanager
    def on(self, backbone: models.Backbone, job: Job) -> Iterator[Loaded]:
        """The backbone with the scaled update attached; no weight is changed."""
        from hiplora.merging.attached import attached

        with attached(backbone.model, self.updates(backbone, job)):
            yield Loaded(backbone.model)


class Snapshot(Source):
    """A trained adapter after a ``fraction`` of its steps, finished as if the training had ended there."""

    kind: ClassVar[str] = "snapshot"

    train: Train
    fraction: Fraction

    @property
    def role(self) -> str:
        return "adapter"

    @property
    def backbone(self) -> Model:
        return self.train.model

    def made_from(self) -> tuple[Stage, ...]:
        return (self.train.keeping(self.fraction),)

    def name(self) -> str:
        return f"{self.train.name()}-step{self.train.training.step_of(self.fraction)}"

    def subject(self) -> tuple[str, str]:
        words, remedy = Adapted(train=self.train).subject()
        return f"{words}, after step {self.train.training.step_of(self.fraction)}", remedy

    def updates(self, backbone: models.Backbone, job: Job) -> dict[str, Update]:
        """Module name → ΔW at that step."""
        with self.train.on_snapshot(self.fraction, backbone, job) as model:
            return self.train.method.updates(model)

    @contextmanager
    def on(self, backbone: models.Backbone, job: Job) -> Iterator[Loaded]:
        """The backbone with the update of that step attached; no weight is changed."""
        from hiplora.merging.attached import attached

        with attached(backbone.model, self.updates(backbone, job)):
            yield Loaded(backbone.model)


class Merged(Source):
    """Adapters of several tasks merged into one update, which is attached to the backbone.

    Before merging, each adapter's update is multiplied by its entry of ``scales``, or rescaled to its entry of
    ``norms`` (‖ΔW‖_F over all matrices); only one of the two may be given.
    """

    kind: ClassVar[str] = "merged"

    adapters: Annotated[tuple[Train, ...], Field(strict=False)]
    operator: Operator
    scales: Annotated[tuple[Scale, ...] | None, Field(strict=False), Neutral(None)] = None
    norms: Annotated[tuple[Norm, ...] | None, Field(strict=False), Neutral(None)] = None

    @property
    def backbone(self) -> Model:
        return self.adapters[0].model

    @property
    def members(self) -> list[tuple[str, int]]:
        """(task, training seed) of every adapter."""
        return [(train.task.name, train.seed) for train in self.adapters]

    def made_from(self) -> tuple[Stage, ...]:
        return self.adapters

    def name(self) -> str:
        calibration = [] if self.operator.calibration == "none" else [self.operator.calibration]
        who = "+".join(f"{task}.{seed}" for task, seed in self.members)
        sizes = [f"x{'+'.join(f'{scale:.3g}' for scale in self.scales)}"] if self.scales else []
        sizes += [f"norm{'+'.join(f'{norm:.3g}' for norm in self.norms)}"] if self.norms else []
        return "-".join([self.adapters[0].method.name, self.operator.name, *calibration, who, *sizes])

    def subject(self) -> tuple[str, str]:
        remedy = "choose another operator or a lower merge.scale, or lower training.lr if one of them has diverged"
        return f"the merge={self.operator.name} of {', '.join(self._labels())}", remedy

    def check_options(self) -> None:
        for field in ("scales", "norms"):
            given = getattr(self, field)
            if given is not None and len(given) != len(self.adapters):
                raise UserError(
                    f"{field} has {len(given)} numbers for {len(self.adapters)} adapters; give one for each."
                )
        if self.scales is not None and self.norms is not None:
            raise UserError("An adapter is either scaled or rescaled to a norm; give scales or norms, not both.")

    def check(self) -> None:
        method, operator = self.adapters[0].method, self.operator
        operator.check_adapters(len(self.adapters))
        if method.full_rank and not operator.accepts_dense:
            raise UserError(
                f"merge={operator.name} works on low-rank factors, but method={method.name} has full-rank "
                "updates; choose a dense operator: addition, task_arithmetic, ties, dare or della."
            )

    @contextmanager
    def on(self, backbone: models.Backbone, job: Job) -> Iterator[Loaded]:
        """The backbone with the merged update attached; no weight is changed."""
        import torch

        from hiplora.merging import apply
        from hiplora.merging.attached import attached

        started = time.perf_counter()
        # The draws depend on tasks and training seeds alone, so that all rows of a table share their masks.
        drawn = digest({"draws": DRAWS, "adapters": [[task, seed] for task, seed in self.members]})
        generator = torch.Generator().manual_seed(int(drawn, 16))
        updates = self._members(backbone, job)
        merged = apply(self.operator, updates, generator=generator, labels=self._labels())
        with attached(backbone.model, merged.updates):
            yield Loaded(backbone.model, {**merged.report, "seconds": round(time.perf_counter() - started, 2)})

    def _members(self, backbone: models.Backbone, job: Job) -> list[dict[str, Update]]:
        """The update of each adapter, scaled by ``scales`` or to ``norms``."""
        from hiplora.stages.energy import norm

        updates = [trained_updates(train, backbone, job) for train in self.adapters]
        scales = self.scales
        if self.norms is not None:
            scales = tuple(asked / (norm(update) or 1.0) for asked, update in zip(self.norms, updates, strict=True))
        return updates if scales is None else [scaled(u, c) for u, c in zip(updates, scales, strict=True)]

    def _labels(self) -> list[str]:
        return [f"{task} (seed {seed})" for task, seed in self.members]


def scaled(updates: Mapping[str, Update], factor: float) -> dict[str, Update]:
    """Every update multiplied by ``factor``; at 1 the same objects."""
    return {name: update if factor == 1 else update.scaled(factor) for name, update in updates.items()}


_HELD: dict[tuple[Any, ...], dict[str, Update]] = {}


def trained_updates(train: Train, backbone: models.Backbone, job: Job) -> dict[str, Update]:
    """Module name → ΔW of a trained adapter, which ``job`` must have among its needs.

    The last ``KEPT`` adapters, up to ``KEPT_BYTES``, stay in memory, because merge instances share them. Raises as
    :meth:`Train.on`.
    """
    key = (id(backbone.model), train.id, job.needs[train.id].digest)
    if key not in _HELD:
        with train.on(backbone, job) as model:
            found = train.method.updates(model)
        if any(held[0] != key[0] for held in _HELD):
            _HELD.clear()
        while len(_HELD) >= KEPT or (_HELD and _bytes(found) + sum(map(_bytes, _HELD.values())) > KEPT_BYTES):
            _HELD.pop(next(iter(_HELD)))
        _HELD[key] = found
    return _HELD[key]


def _bytes(updates: Mapping[str, Update]) -> int:
    return sum(update.nbytes for update in updates.values())
