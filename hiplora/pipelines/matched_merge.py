"""Pipeline ``matched_merge``: one seed's adapters of several tasks, merged at equal learning (Table 16).

The merged model is scored by likelihoods only: the question is how much of each task's gain in NLL it keeps.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from pydantic import Field

from hiplora.errors import UserError
from hiplora.pipelines.base import Config, Stages, replayed, scores, training
from hiplora.pipelines.frontier import Frontiers, level_of, no_level, score_at
from hiplora.pipelines.merge import of_task
from hiplora.stages.make import Wanted
from hiplora.stages.record import Record
from hiplora.stages.score import Score
from hiplora.stages.sources import Backbone, Merged
from hiplora.stages.train import Train
from hiplora.stats import kept_share


@dataclass(frozen=True)
class Member:
    """An adapter of one task, the scale at which it is merged, and the norm of its update there."""

    config: Config
    train: Train
    c: float
    norm: float


class MatchedMerge(Frontiers):
    """Merges the adapters of ``tasks`` that have a level; ``rescaled`` gives each update the reference's norm.

    The reference is the same command with the overrides ``against``: its adapters of the same seed and tasks, each at
    its own c. An adapter that never reaches the level is merged at the scale at which it has learned most.
    """

    many: ClassVar[bool] = True

    tasks: Annotated[tuple[str, ...], Field(strict=False, min_length=2)]
    rescaled: bool
    against: Annotated[tuple[str, ...], Field(strict=False)]

    def check_options(self) -> None:
        super().check_options()
        self.check_distinct("tasks")

    def stages(self, config: Config) -> Stages:
        return self._steps(config)

    def conclude(self, config: Config, found: Mapping[str, Record]) -> str:
        """A table of each task's NLL: the backbone, its adapter alone, merged, and the share of the gain kept."""
        base, *own, merged = (found[wanted.stage.id].result for wanted in replayed(self._steps(config), found))
        lines = [f"{'merged task':<12}{'backbone':>10}{'alone':>10}{'merged':>10}{'kept':>8}   NLL; share of the gain"]
        for name, alone in zip(self._merged_tasks(config), own, strict=True):
            before, after, now = (result.benchmarks[name]["nll"] for result in (base, alone, merged))
            share = kept_share(base=before, own=after, merged=now)
            kept = "–" if share is None else f"{share:.3f}"
            lines.append(f"{name:<12}{before:>10.4f}{after:>10.4f}{now:>10.4f}{kept:>8}")
        return "\n".join(lines)

    def _steps(self, config: Config) -> Generator[Any, list[Record], list[Wanted]]:
        members = yield from self._members(config)
        norms = None
        if self.rescaled:
            reference = config.other(*self.against).but(pipeline=self)
            norms = [member.norm for member in (yield from self._members(reference))]
        base = Wanted(scores(config, Backbone(model=config.model)), shared=True)
        own = [Wanted(score_at(member.config, member.train, member.c), shared=True) for member in members]
        asked = [base, *own, Wanted(self._merged(config, members, norms))]
        yield asked
        return asked

    def _merged_tasks(self, config: Config) -> list[str]:
        """Those of ``tasks`` that have a level. Raises UserError if these are fewer than two."""
        configs = [_of(config, name) for name in self.tasks]
        found = [each.task.name for each in configs if level_of(each) is not None]
        if len(found) < 2:
            why = " ".join(no_level(each) for each in configs if each.task.name not in found)
            raise UserError(f"pipeline=matched_merge needs at least two tasks with a level of learning. {why}")
        return found

    def _members(self, config: Config) -> Generator[Any, list[Record], list[Member]]:
        """The adapters of all tasks with their scales; yields the stages that this needs."""
        configs = [_of(config, name) for name in self._merged_tasks(config)]
        curves = yield from self.curves(configs, shared=True)
        members = []
        for one, drawn in zip(configs, curves, strict=True):
            c, _ = drawn.place(_level(one))
            members.append(Member(one, training(one), c, drawn.at(c, lambda point: point.norm)))
        return members

    def _merged(self, config: Config, members: list[Member], norms: list[float] | None) -> Score:
        scales = None if norms is not None or all(m.c == 1 for m in members) else tuple(m.c for m in members)
        source = Merged(
            adapters=tuple(member.train for member in members),
            operator=config.merge,
            scales=scales,
            norms=None if norms is None else tuple(norms),
        )
        asked = {task.name: task for task in config.benchmarks}
        return Score(
            of=source,
            benchmarks=tuple(asked[member.config.task.name] for member in members),
            evaluation=config.evaluation.but(likelihood_only=True),
            data=config.data,
        )


def _of(config: Config, name: str) -> Config:
    """The configuration of the single run of a benchmark.

    Raises:
        UserError: there is no such benchmark.
    """
    tasks = {task.name: task for task in config.benchmarks}
    if name not in tasks:
        raise UserError(f"pipeline.tasks names {name}; choose among {', '.join(tasks)}.")
    return of_task(config, tasks[name])


def _level(config: Config) -> float:
    level = level_of(config)
    assert level is not None  # the tasks without one are left out
    return level
