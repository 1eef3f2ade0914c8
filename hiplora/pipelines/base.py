"""Base class of pipelines: a pipeline has its own options and turns a configuration into stages.

A pipeline computes nothing. It returns its stages as a list, or as a generator if later stages depend on results: the
generator yields stages and receives their records.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Generator, Mapping, Sequence
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
    many: ClassVar[bool] = False  # whether it has so many stages that a run prints their number, not each of them
    unscaled: ClassVar[bool] = False  # whether it refuses evaluation.scale: adapters unscaled, or at its own scales
    with_lm_tasks: ClassVar[bool] = False  # whether its models can also be scored on tasks of lm-eval
    with_retain: ClassVar[bool] = False  # whether it prints Retain, so that evaluation.retain has a meaning

    name: str

    @property
    def also_scored(self) -> tuple[str, ...]:
        """Benchmarks that its runs are scored on besides the four and the task's own."""
        return ()

    @property
    def sets(self) -> Collection[str]:
        """Options, or sections of options, that its runs set themselves: to type one is refused."""
        return ()

    def check_distinct(self, *fields: str) -> None:
        """Refuse a list that names a value twice. Raises UserError."""
        for field in fields:
            values = list(getattr(self, field))
            if len({*values}) < len(values):
                words = ",".join(map(str, values))
                raise UserError(f"{self.typed(field, f'[{words}]')} names a value twice; name each once.")

    def stages(self, config: Config) -> Stages:
        """The stages that the configuration asks for, in the order in which to make them; computes nothing."""
        raise NotImplementedError

    def conclude(self, config: Config, found: Mapping[str, Record]) -> str | None:
        """A text to print at the end of a run, or None. ``found`` holds the records of all stages by id.

        The text must follow from these records alone. A pipeline may also write files beside the records here.
        """
        return None


class Config(Options):
    """One run as the user typed it: the sections of ``conf/`` as typed options.

    ``words`` are the overrides that ``compose`` composed it from. ``adapter_scale`` multiplies the update of every
    adapter that is scored or merged; it changes no training. ``lm_tasks`` are tasks of lm-eval scored besides the
    benchmarks. ``retain`` names the benchmarks that Retain counts; if empty, the four.
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
        for word in self.words:
            option = word.lstrip("+~").partition("=")[0]
            if any(f"{option}.".startswith(f"{each}.") for each in self.pipeline.sets):
                raise UserError(f"{word} would be ignored, because pipeline={name} sets it itself; leave it out.")
        self._check_lm_tasks()

    def _check_lm_tasks(self) -> None:
        """Refuse lm-eval's tasks and ``retain`` where the pipeline or the evaluation cannot use them."""
        name = self.pipeline.name
        if self.lm_tasks is not None and not self.pipeline.with_lm_tasks:
            raise UserError(f"evaluation.tasks means nothing to pipeline={name}; leave it out.")
        if self.retain and not self.pipeline.with_retain:
            raise UserError(f"evaluation.retain means nothing to pipeline={name}; leave it out.")
        counted(self.retain, () if self.lm_tasks is None else self.lm_tasks.scored(self.retain))
        if self.lm_tasks is not None and (self.evaluation.splits != "test" or self.evaluation.likelihood_only):
            raise UserError(
                "evaluation.tasks scores lm-eval's tasks in full, on the documents that their definitions name; type "
                "it with evaluation.splits=test and evaluation.likelihood_only=false, or leave it out."
            )

    @property
    def places(self) -> Places:
        """The folders of this run's records and artefacts."""
        return Places(outputs=typed_path(self.outputs_dir), results=typed_path(self.results_dir) / self.data.name)

    def stages(self) -> Stages:
        """The stages that this configuration asks for."""
        return self.pipeline.stages(self)

    def conclude(self, outcomes: Sequence[Outcome]) -> str | None:
        """The pipeline's text at the end of a run, or None."""
        return self.pipeline.conclude(self, {outcome.stage.id: outcome.record for outcome in outcomes})

    def other(self, *words: str) -> Config:
        """The configuration of the same command with more overrides, and the same seed.

        If these choose a method, the command's own overrides of the method are dropped.

        Raises:
            UserError: it does not compose.
        """
        out = ["pipeline", "seed", *(["method"] if any(word.startswith("method=") for word in words) else [])]
        kept = [word for word in self.words if re.split(r"[.=]", word.lstrip("+~"))[0] not in out]
        return self.compose([*kept, *words]).but(seed=self.seed)


def known(config: Config, answer: Callable[[Stage], Record | None]) -> tuple[list[Stage], bool]:
    """The stages that a configuration asks for, each once, and whether these are all of them.

    A generator is followed until ``answer`` returns None for a stage whose record it needs.
    """
    asked = config.stages()
    if not isinstance(asked, Generator):
        return list({wanted.stage.id: wanted.stage for wanted in asked}.values()), True
    found: dict[str, Stage] = {}
    reply: Any = None
    while True:
        try:
            batch = asked.send(reply)
        except StopIteration:
            return list(found.values()), True
        stages = [wanted.stage for wanted in (batch if isinstance(batch, Sequence) else [batch])]
        found |= {stage.id: stage for stage in stages}
        reply = [record for stage in stages if (record := answer(stage)) is not None]
        if len(reply) < len(stages):
            return list(found.values()), False


def replayed(steps: Generator[Sequence[Wanted], list[Record], Any], found: Mapping[str, Record]) -> Any:
    """The return value of a generator of stages, given the records of all its stages by id."""
    try:
        asked = next(steps)
        while True:
            asked = steps.send([found[wanted.stage.id] for wanted in asked])
    except StopIteration as end:
        return end.value


def training(
    config: Config, *, task: Corpus | None = None, seed: int | None = None, parent: Train | None = None
) -> Train:
    """The training that a configuration asks for; ``task`` and ``seed`` replace the configuration's own.

    With a ``parent`` it continues from that adapter.
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
    """The score of a source or an adapter on all benchmarks; an adapter is scaled by ``config.adapter_scale``."""
    return Score(
        of=put_on(of, config.adapter_scale) if isinstance(of, Train) else of,
        benchmarks=config.benchmarks,
        evaluation=config.evaluation,
        data=config.data,
        lm_tasks=config.lm_tasks,
    )


def put_on(train: Train, scale: float) -> Adapted | Scaled:
    """The source of a trained adapter: as saved if ``scale`` is 1, else scaled."""
    return Adapted(train=train) if scale == 1 else Scaled(of=train, scale=scale)


def frontier(
    config: Config, of: Backbone | Train, *, scales: Sequence[float], own_items: int, other_items: int, text_tokens: int
) -> Frontier:
    """The frontier of the backbone, or of an adapter at ``scales`` and at the fractions of ``training.snapshots``."""
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
