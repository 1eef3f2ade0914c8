"""Runs of a selection: from overrides, as a person would type them, to stages; from their records to numbers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import reduce
from statistics import mean
from typing import Any

from hiplora.errors import UserError
from hiplora.evaluation.retention import forgotten
from hiplora.pipelines.base import Config
from hiplora.pipelines.equal import Curve, curve
from hiplora.pipelines.frontier import Frontiers
from hiplora.pipelines.merge import of_task
from hiplora.selection import Matched, Settings
from hiplora.stages.make import Wanted
from hiplora.stages.record import Record

Words = tuple[str, ...]


@dataclass(frozen=True)
class Run:
    """One adapter of a selection: its overrides, its task and its training seed."""

    words: Words
    task: str
    seed: int


@dataclass
class Runs:
    """The runs of a selection, all on validation.

    ``frontiers`` gives the scales and the items to measure; ``found`` holds the records received so far, by id.
    """

    frontiers: Frontiers
    config: Config
    found: dict[str, Record] = field(default_factory=dict)
    _composed: dict[Words, Config] = field(default_factory=dict)
    _wanted: dict[Run, list[Wanted]] = field(default_factory=dict)

    def composed(self, words: Words) -> Config:
        """The configuration with some overrides. Raises UserError if they do not compose."""
        if words not in self._composed:
            self._composed[words] = self.config.other(*words)
        return self._composed[words]

    def configured(self, run: Run) -> Config:
        """The configuration of one run; forgetting is measured on validation too, and no snapshot is kept.

        Raises:
            UserError: its task is no benchmark of the configuration.
        """
        config = self.composed(run.words)
        tasks = {task.name: task for task in config.benchmarks}
        if run.task not in tasks:
            raise UserError(f"{run.task} is no benchmark; choose among {', '.join(tasks)}.")
        return of_task(config, tasks[run.task]).but(
            seed=run.seed,
            evaluation=config.evaluation.but(splits="validation"),
            training=config.training.but(snapshots=()),
        )

    def wanted(self, runs: Iterable[Run]) -> list[Wanted]:
        """The stages of some runs, each once. force=true redoes none of them, because that would take hours."""
        stages = [each.stage for run in dict.fromkeys(runs) for each in self._of(run)]
        return [Wanted(stage, shared=True, artefact=False) for stage in {stage.id: stage for stage in stages}.values()]

    def _of(self, run: Run) -> list[Wanted]:
        if run not in self._wanted:
            self._wanted[run] = self.frontiers.wanted(self.configured(run))
        return self._wanted[run]

    def ids(self, run: Run) -> tuple[str, str, str]:
        """Ids of a run's training, of the backbone's frontier and of its own."""
        train, base, frontier = (wanted.stage.id for wanted in self._of(run))
        return train, base, frontier

    def learn(self, records: Sequence[Record]) -> None:
        """Store the records of stages that were asked for."""
        self.found |= {record.id: record for record in records}

    def curve(self, run: Run) -> Curve:
        """The curve of a run whose records are stored.

        It is linear: with cubics the committed selection would have had other finalists, closer than their noise.
        """
        _, base, frontier = self.ids(run)
        return replace(curve(run.task, base=self.found[base], adapter=self.found[frontier]), linear=True)

    def level(self, words: Words, task: str, seeds: Iterable[int], scale: float) -> float:
        """The own NLL at ``scale``, averaged over the adapters of ``seeds``."""
        return mean(self.curve(Run(words, task, seed)).own(scale) for seed in seeds)

    def gained(self, words: Words, task: str, seeds: Iterable[int], share: float) -> float:
        """The own NLL with this share of an adapter's largest gain, averaged over the adapters of ``seeds``."""
        return mean(self.curve(Run(words, task, seed)).gained(share) for seed in seeds)

    def matched(self, run: Run, level: float) -> Matched:
        """The numbers of a run at the scale that reaches ``level``; its records must be stored."""
        train, _, frontier = self.ids(run)
        drawn, measures = self.curve(run), self._measures(train)
        c, reached = drawn.place(level)
        rises = drawn.rises(c)
        retain_nll = forgotten(rises, trained_on=run.task)["nll"]
        assert retain_nll is not None  # a frontier has the likelihoods of every benchmark
        return Matched(
            task=run.task,
            seed=run.seed,
            reached=reached,
            c=c,
            lowest=drawn.own(drawn.most()),
            text=rises["text"],
            retain_nll=retain_nll,
            rises=rises,
            norm=drawn.at(c, lambda point: point.norm),
            top_share=measures.get("top_share"),
            channel_share=measures.get("channel_share"),
            train=train,
            frontier=frontier,
        )

    def _measures(self, train: str) -> dict[str, float]:
        result: Any = self.found[train].result
        return result.measures

    def settings(self, words: Words) -> Settings:
        """Option → value for every option that ``words`` set, except the method."""
        config = self.composed(words)
        return {name: value_of(config, name) for name in map(option, words) if name != "method"}


def option(word: str) -> str:
    """The option that an override sets."""
    return word.partition("=")[0]


def value_of(config: Config, name: str) -> Any:
    """The value of an option such as ``training.lr``.

    Raises:
        UserError: there is no such option among those that a trial can set.
    """
    try:
        value = reduce(getattr, name.split("."), config)
        return list(value) if isinstance(value, tuple) else value  # as it is read again from JSON
    except AttributeError:
        raise UserError(f"{name} is not an option that a trial can set; name one of method or training.") from None
