"""Kind ``train``: one adapter, trained on examples from the bare backbone or from another adapter."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from hiplora import models
from hiplora.adapters.card import Card, Scored, write_card
from hiplora.config import As, Bookkeeping, Neutral, Place, Seed
from hiplora.errors import UserError
from hiplora.methods.base import Method, Setup
from hiplora.models import Model
from hiplora.spectral.options import Svd
from hiplora.stages import energy
from hiplora.stages.artefact import OPTIMIZER, add_basis, lacks_basis, native, save, snapshot, tensors_digest, verify
from hiplora.stages.base import Job, Made, Stage
from hiplora.stages.cards import Trained, adapter_card
from hiplora.stages.results import Adapter
from hiplora.stages.targets import resolved, target_shapes
from hiplora.tasks.base import Corpus
from hiplora.tasks.source import Data, Source
from hiplora.training.options import Training

if TYPE_CHECKING:
    from peft import PeftModel

    from hiplora.training.trainer import TrainResult
    from hiplora.updates import Update


class Train(Stage):
    """A training; it leaves the adapter's folder and a record. ``svd`` is None if the method needs none.

    With a ``parent`` the training continues from that adapter, with a fresh ``optimizer`` (reset) or with the parent's
    AdamW moments (carry), which the parent stored under ``keep_optimizer``. ``save_basis`` stores the singular
    directions in the folder. ``measured_by`` gives the directions against which the record measures the update, whether
    or not the method uses them. The top shares are left out if it is None or its directions are not accurate enough
    (:func:`hiplora.stages.energy.leading`).
    """

    kind: ClassVar[str] = "train"
    artefact: ClassVar[bool] = True

    method: Method
    task: Annotated[Corpus, As(lambda task: task.trained())]
    seed: Seed
    model: Model
    targets: Annotated[tuple[str, ...], Field(strict=False), As(sorted)]
    svd: Svd | None
    training: Training
    data: Annotated[Data, Place]
    parent: Annotated[Train | None, Neutral(None)] = None
    optimizer: Annotated[Literal["reset", "carry"], Neutral("reset")] = "reset"
    keep_optimizer: Annotated[bool, Bookkeeping] = False
    save_basis: Annotated[bool, Bookkeeping] = False
    measured_by: Annotated[Svd | None, Bookkeeping] = None

    def needs(self) -> tuple[Stage, ...]:
        return () if self.parent is None else (self.parent,)

    def reads(self) -> dict[str, str]:
        return {"backbone": models.identity(self.model), **self.task.training_reads(Source(self.data))}

    def where(self) -> str:
        return self.model.where()

    def name(self) -> str:
        return f"{self.method.name}-{'+'.join(train.task.name for train in self.line())}-s{self.seed}"

    def check_options(self) -> None:
        """Refuse too few singular directions, and a parent with another method, model, SVD or targets."""
        if self.svd is not None:
            self.method.check_svd(self.svd)
        self._check_optimizer()
        if self.parent is None:
            return
        mine, parents = ((t.method, t.model, t.svd, sorted(t.targets)) for t in (self, self.parent))
        if mine != parents:
            names = ("method", "model", "svd", "model.target_modules")
            differ = [name for name, one, other in zip(names, mine, parents, strict=True) if one != other]
            raise UserError(
                f"This training continues from an adapter with another {', '.join(differ)}; give both the same "
                "options, or train from the backbone."
            )

    def _check_optimizer(self) -> None:
        if self.optimizer == "carry" and self.method.fresh_factors:
            raise UserError(
                f"method={self.method.name} trains new factors on every task, so there is no optimizer state to carry "
                "over; type pipeline.optimizer=reset."
            )
        if self.optimizer == "carry" and (self.parent is None or not self.parent.keep_optimizer):
            raise UserError("optimizer=carry needs a parent that keeps its optimizer's state (keep_optimizer=true).")

    def line(self) -> list[Train]:
        """The chain of trainings that ends in this one, the first training first."""
        return [*(self.parent.line() if self.parent is not None else []), self]

    def keeping(self, *fractions: float) -> Train:
        """This training with snapshots at these fractions too; the id and the adapter stay the same."""
        asked = tuple(sorted({*self.training.snapshots, *fractions}))
        return self.but(training=self.training.but(snapshots=asked))

    def check(self) -> None:
        models.check(self.model)
        self.task.check_training(Source(self.data))

    def run(self, job: Job) -> Made:
        from transformers import set_seed

        from hiplora.training.memory import peak_memory
        from hiplora.training.trainer import train

        backbone = models.load(self.model)
        targets = resolved(backbone.model, self.targets)
        self.method.check(target_shapes(backbone.model, targets))
        encoded = self.task.encoded_examples(Source(self.data), backbone.tokenizer)
        set_seed(self.seed)  # for the adapter's initialisation; the trainer seeds data order and dropout itself
        with put_on(self.method, lambda: self._start(backbone, job)) as model:
            trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
            with peak_memory(backbone.device) as peak:  # not of an SVD that the method's start may have computed
                trained = train(
                    model,
                    backbone.tokenizer,
                    encoded,
                    method=self.method,
                    training=self._with_kept(job.folder),
                    seed=self.seed,
                    checkpoint_dir=self._checkpoints(job),
                    tracker=job.tracker,
                    moments=self._moments(job),
                )
                memory = peak()
            tensors = tensors_digest(trained.native)
            save(
                self.method,
                model,
                job.folder,
                native=trained.native,
                tensors=tensors,
                snapshots=trained.snapshots,
                optimizer=trained.optimizer if self.keep_optimizer or (job.folder / OPTIMIZER).is_file() else None,
            )
            deployed, updates = self.method.deployed_parameters(model), self.method.updates(model)
        result = Adapter(
            **_figures(trained),
            tensors=tensors,
            trainable_parameters=trainable,
            deployed_parameters=deployed,
            adapter_bytes=sum(path.stat().st_size for path in job.folder.glob("*.safetensors")),
            peak_memory_bytes=memory,
            measures=self._measures(backbone, updates),
            gains=energy.gains(backbone.model, updates),
            targets=list(targets) if targets != self.targets else [],
        )
        write_card(job.folder, self.card(result))
        return Made(result, models.describe(backbone))

    def _with_kept(self, folder: Path) -> Training:
        """The options, with the snapshots that the folder holds, so that other runs need not train again for theirs."""
        steps = range(1, self.training.steps)
        kept = [step / self.training.steps for step in steps if (folder / snapshot(step)).is_file()]
        return self.training.but(snapshots=tuple(sorted({*self.training.snapshots, *kept})))

    def _data_in_words(self) -> str:
        """What it was trained on, from what the id was made of: the user's files may have changed meanwhile."""
        reads = {name: digest for name, digest in self._read.items() if name != "backbone"}
        return self.task.in_words(self.data.name, reads)

    def card(self, result: Adapter, scores: Sequence[Scored] = ()) -> Card:
        """The model card of the adapter, with the scores known so far."""
        made = Trained(
            record=f"train {self.id} ({self.where()})",
            tasks=[train.task.name for train in self.line()],
            data=[train._data_in_words() for train in self.line()],
            seed=self.seed,
            targets=self.targets,
            method=self.method,
            training=self.training,
            model=self.model,
        )
        return adapter_card(made, result, scores)

    def _measures(self, backbone: models.Backbone, updates: Mapping[str, Update]) -> dict[str, float]:
        """The measures of the update; the adapter must be off the backbone."""
        directions = None if self.measured_by is None else energy.bases(backbone.model, updates, self.measured_by)
        return energy.measures(updates, directions)

    def _fresh(self, backbone: models.Backbone) -> PeftModel:
        targets = resolved(backbone.model, self.targets)
        setup = Setup(targets=targets, svd=self.svd, training=self.training, save_basis=self.save_basis)
        return self.method.attach(backbone.model, setup=setup)

    def _start(self, backbone: models.Backbone, job: Job) -> PeftModel:
        """The model to train: the backbone with a fresh adapter, or with the parent's."""
        model = self._fresh(backbone)
        if self.parent is not None:
            parent = self.parent.id
            self.method.go_on(model, native(job.artefacts[parent], job.needs[parent]))
        return model

    def _moments(self, job: Job) -> dict[Any, Any] | None:
        """AdamW's state of the parent's last step, if it is carried over."""
        if self.parent is None or self.optimizer == "reset":
            return None
        return native(job.artefacts[self.parent.id], job.needs[self.parent.id], OPTIMIZER)

    def _checkpoints(self, job: Job) -> Path:
        """Folder of the checkpoints, so that no run resumes those of another parent or of other code."""
        return job.checkpoints / job.made_by

    def clean(self, job: Job) -> None:
        shutil.rmtree(job.checkpoints, ignore_errors=True)

    def holds(self, folder: Path) -> bool:
        """Whether the folder holds all snapshots asked for, and the optimizer's state if that is to be kept."""
        names = [*map(snapshot, self.training.snapshot_steps()), *([OPTIMIZER] if self.keep_optimizer else [])]
        return all((folder / name).is_file() for name in names)

    def complete(self, job: Job) -> None:
        """Add U and V to a finished adapter that was saved without them, if ``save_basis`` asks for them."""
        if self.save_basis and lacks_basis(job.folder):
            print(f"[train] {job.folder.name}: adding U and V to the adapter", file=sys.stderr, flush=True)
            with put_on(self.method, lambda: self._loaded(models.load(self.model), job.folder)) as model:
                add_basis(self.method, model, job.folder)

    @contextmanager
    def on(self, backbone: models.Backbone, job: Job) -> Iterator[PeftModel]:
        """The stored adapter on the backbone, ready to be evaluated; afterwards the backbone is as it was.

        ``job`` is the job of a stage that needs this one.

        Raises:
            UserError: a file of the folder is missing or altered, or the adapter was trained again meanwhile.
        """
        folder = job.artefacts[self.id]
        verify(folder, job.needs[self.id])
        with put_on(self.method, lambda: self._loaded(backbone, folder)) as model:
            yield model

    @contextmanager
    def on_snapshot(self, fraction: float, backbone: models.Backbone, job: Job) -> Iterator[PeftModel]:
        """The adapter after a fraction of the steps, finished; afterwards the backbone is as it was.

        Raises as :meth:`on`.
        """
        kept = native(job.artefacts[self.id], job.needs[self.id], snapshot(self.training.step_of(fraction)))

        def snapshot_on() -> PeftModel:
            model = self._fresh(backbone)
            self.method.put_back(model, kept)
            self.method.finish(model)
            return model

        with put_on(self.method, snapshot_on) as model:
            yield model

    def _loaded(self, backbone: models.Backbone, folder: Path) -> PeftModel:
        return self.method.load(backbone.model, folder)


@contextmanager
def put_on(method: Method, attach: Callable[[], PeftModel]) -> Iterator[PeftModel]:
    """The model that ``attach`` returns; when the block ends, ``method`` takes the adapter off the shared backbone.

    If ``attach`` fails, the cached backbone is dropped, because half an adapter may be left on it.
    """
    try:
        model = attach()
    except BaseException:
        models.forget()
        raise
    try:
        yield model
    finally:
        method.detach(model)


def _figures(trained: TrainResult) -> dict[str, Any]:
    """The trainer's figures that enter the record unchanged."""
    return {name: getattr(trained, name) for name in Adapter.model_fields if hasattr(trained, name)}
