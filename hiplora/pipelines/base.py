"""What a pipeline is: options of its own, and the stages that a configuration asks for.

A pipeline computes nothing. It gives the stages it wants, all at once as a list, or as a generator where the next ones
depend on results: it yields stages, and receives their records.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from hiplora.config import Options, Scale, Seed
from hiplora.disk import FOLDERS, check_folder, typed_path
from hiplora.errors import UserError
from hiplora.evaluation.lm_tasks import LmTasks, counted
from hiplora.evaluation.options import Evaluation
from hiplora.merging.base import Operator
from hiplora.methods.base import Method
from hiplora.models import Model
from hiplora.spectral.options import Svd
from hiplora.stages.base import Source, Stage
from hiplora.stages.frontier import Frontier
from hiplora.stages.make import Outcome, Wanted
from hiplora.stages.record import Record
from hiplora.stages.score import Score
from hiplora.stages.sources import Adapted, Backbone, Scaled
from hiplora.stages.store import Places
from hiplora.stages.train import Train
from hiplora.tasks.base import Corpus, Task
from hiplora.tasks.edits import Edits
from hiplora.tasks.source import Data
from hiplora.training.options import Training

Stages = Sequence[Wanted] | Generator[Wanted | Sequence[Wanted], list[Record], Any]


class Pipeline(Options):
    """Base of all pipelines; a subclass adds its options as fields and implements :meth:`stages`."""

    group: ClassVar[str] = "pipeline"
    many: ClassVar[bool] = False  # whether it asks for more stages than a person wants to read about one by one
    unscaled: ClassVar[bool] = False  # whether it takes every adapter as it is, or at scales of its own
    with_lm_tasks: ClassVar[bool] = False  # whether what it scores can be asked tasks of lm-eval too
    with_retain: ClassVar[bool] = False  # whether it says what an adapter forgot, so that what counts can be chosen

    name: str

    @property
    def also_scored(self) -> tuple[str, ...]:
        """Benchmarks that its runs are scored on beside the four and the task's own."""
        return ()

    def stages(self, config: Config) -> Stages:
        """What the configuration asks for, in the order in which it should be made; computes nothing."""
        raise NotImplementedError

    def conclude(self, config: Config, found: Mapping[str, Record]) -> str | None:
        """Words on what follows from the records of all stages, by id; may write it beside them. None: nothing."""
        return None


class Config(Options):
    """One run as a user typed it: the sections of ``conf/``, typed. Stages take from it what is theirs.

    ``words`` are the overrides that it was composed from, by ``compose``.
    ``adapter_scale`` multiplies the update of every adapter that is scored or merged; nothing is trained otherwise.
    ``lm_tasks`` are lm-eval's, asked beside the benchmarks; ``retain`` names what Retain counts, the four where empty.
    """

    pipeline: Pipeline
    method: Method
    task: Task
    benchmarks: Annotated[tuple[Task, ...], Field(strict=False)]
    merge: Operator
    seed: Seed
    scale: str
    model: Model
    data: Data
    svd: Svd
    training: Training
    evaluation: Evaluation
    lm_tasks: LmTasks | None
    retain: Annotated[tuple[str, ...], Field(strict=False)]
    edits: Edits
    adapter_scale: Scale
    logging: Literal["plain", "wandb"]
    force: bool
    save_basis: bool
    outputs_dir: str
    results_dir: str
    words: Annotated[tuple[str, ...], Field(strict=False)]
    compose: Callable[[Sequence[str]], Any]

    @classmethod
    def typed_as(cls, field: str) -> str:
        return {"adapter_scale": "evaluation.scale", "retain": "evaluation.retain"}.get(field, field)

    def check_options(self) -> None:
        for field in FOLDERS:
            check_folder(field, getattr(self, field))
        if self.method.uses_svd:
            self.method.check_svd(self.svd)
        name, scale = self.pipeline.name, self.adapter_scale
        if self.pipeline.unscaled and scale != 1:
            raise UserError(f"evaluation.scale={scale:g} means nothing to pipeline={name}; leave it out.")
        self._check_lm_tasks()

    def _check_lm_tasks(self) -> None:
        """Refuse lm-eval's tasks where they are not asked, or not on what they are defined on."""
        name = self.pipeline.name
        if self.lm_tasks is not None and not self.pipeline.with_lm_tasks:
            raise UserError(f"evaluation.tasks means nothing to pipeline={name}; leave it out.")
        if self.retain and not self.pipeline.with_retain:
            raise UserError(f"evaluation.retain means nothing to pipeline={name}; leave it out.")
        counted(self.retain, () if self.lm_tasks is None else self.lm_tasks.tasks)
        if self.lm_tasks is not None and (self.evaluation.splits != "test" or self.evaluation.likelihood_only):
            raise UserError(
                "evaluation.tasks asks lm-eval's tasks in full, on the documents that their definitions name; type it "
                "with evaluation.splits=test and evaluation.likelihood_only=false, or leave it out."
            )

    @property
    def places(self) -> Places:
        """Where records and artefacts of this run lie."""
        return Places(outputs=typed_path(self.outputs_dir), results=typed_path(self.results_dir) / self.data.name)

    def stages(self) -> Stages:
        """What this configuration asks for."""
        return self.pipeline.stages(self)

    def conclude(self, outcomes: Sequence[Outcome]) -> str | None:
        """What the pipeline says at the end of a run."""
        return self.pipeline.conclude(self, {outcome.stage.id: outcome.record for outcome in outcomes})

    def other(self, *words: str) -> Config:
        """The configuration of the same command with more words, and the same seed.

        Where these choose a method, what the command says of its own method is left out.

        Raises:
            UserError: it does not compose.
        """
        out = ["pipeline", "seed", *(["method"] if any(word.startswith("method=") for word in words) else [])]
        kept = [word for word in self.words if re.split(r"[.=]", word.lstrip("+~"))[0] not in out]
        return self.compose([*kept, *words]).but(seed=self.seed)


def known(config: Config, answer: Callable[[Stage], Record | None]) -> tuple[list[Stage], bool]:
    """The stages that a configuration asks for as far as ``answer`` gives results, and whether these are all."""
    asked = config.stages()
    if not isinstance(asked, Generator):
        return [wanted.stage for wanted in asked], True
    found: list[Stage] = []
    reply: Any = None
    while True:
        try:
            batch = asked.send(reply)
        except StopIteration:
            return found, True
        stages = [wanted.stage for wanted in (batch if isinstance(batch, Sequence) else [batch])]
        found += stages
        reply = [record for stage in stages if (record := answer(stage)) is not None]
        if len(reply) < len(stages):
            return found, False


def replayed(steps: Generator[Sequence[Wanted], list[Record], Any], found: Mapping[str, Record]) -> Any:
    """What a generator of stages returns once it has the records of all it asks for, by id."""
    try:
        asked = next(steps)
        while True:
            asked = steps.send([found[wanted.stage.id] for wanted in asked])
    except StopIteration as end:
        return end.value


def training(
    config: Config, *, task: Corpus | None = None, seed: int | None = None, parent: Train | None = None
) -> Train:
    """The training that a configuration asks for, or of another corpus or seed with everything else the same.

    With a ``parent`` it goes on from that adapter.
    """
    chosen = (config.task if task is None else task).as_trained()
    return Train(
        method=config.method,
        task=chosen,
        seed=config.seed if seed is None else seed,
        model=config.model,
        targets=config.model.target_modules,
        svd=config.svd if config.method.uses_svd else None,
        training=config.training,
        data=config.data,
        parent=parent,
        save_basis=config.save_basis,
        measured_by=config.svd,
    )


def scores(config: Config, of: Source | Train) -> Score:
    """Scores of a source or of an adapter, scaled where that is asked for, on all benchmarks of a configuration."""
    return Score(
        of=put_on(of, config.adapter_scale) if isinstance(of, Train) else of,
        benchmarks=config.benchmarks,
        evaluation=config.evaluation,
        data=config.data,
        lm_tasks=config.lm_tasks,
    )


def put_on(train: Train, scale: float) -> Adapted | Scaled:
    """The adapter as it is, or scaled."""
    return Adapted(train=train) if scale == 1 else Scaled(of=train, scale=scale)


def frontier(
    config: Config, of: Backbone | Train, *, scales: Sequence[float], own_items: int, other_items: int, text_tokens: int
) -> Frontier:
    """Cheap scores of the backbone, or of an adapter at some scales and at the fractions of ``training.snapshots``."""
    trained = isinstance(of, Train)
    return Frontier(
        of=of,
        scales=tuple(scales) if trained else (),
        fractions=config.training.snapshots if trained else (),
        benchmarks=config.benchmarks,
        evaluation=config.evaluation.but(text_tokens=text_tokens),
        own_items=own_items,
        other_items=other_items,
        data=config.data,
        svd=config.svd if trained else None,
    )
