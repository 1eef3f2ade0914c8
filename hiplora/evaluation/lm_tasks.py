"""Options for tasks of lm-eval that are scored besides the benchmarks: their names and definitions, and Retain.

Light: only :mod:`hiplora.evaluation.harness` loads lm-eval, when tasks are scored.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field

from hiplora.config import As, Options, Place
from hiplora.disk import typed_path
from hiplora.errors import UserError
from hiplora.evaluation.definitions import (
    PREFIX,
    Definition,
    all_definitions,
    built_in,
    described,
    names,
    own_mark,
    replaced_members,
)
from hiplora.tasks import ORDER

FIELDS = ("tasks", "include_path", "retain")  # fields of the section evaluation that belong to LmTasks
RETAIN = "evaluation.retain"  # the option that names what Retain counts
THEIRS = "lm_eval:"  # prefix in it of an lm-eval task that has a benchmark's name
HUNDREDS = ("bleu", "chrf", "chrf++", "ter")  # metrics of lm-eval that are not fractions of 1
UNKNOWN = "has no direction: its definition does not say whether higher is better"


@dataclass(frozen=True)
class Counted:
    """An entry of Retain: a benchmark of ours, by its headline score, or a task of lm-eval.

    The task counts by ``metric``, or by its main metric if that is None.
    """

    name: str
    ours: bool
    metric: str | None = None

    @classmethod
    def benchmark(cls, name: str) -> Counted:
        """One of ours."""
        return cls(name, ours=True)

    @property
    def key(self) -> str:
        """Its name among all scores of a model."""
        return self.name if self.ours else f"{PREFIX}{self.name}"


class LmScore(BaseModel):
    """The scores of a task of lm-eval, or of a group with scores of its own; part of a record.

    ``metrics`` holds lm-eval's metrics, the main one first, by lm-eval's names without ``,none``; None if a value is
    not a finite number. ``stderr`` holds their standard errors, ``better`` whether higher is better. ``group`` is the
    outermost group with scores of its own that contains it.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    metrics: dict[str, float | None]
    stderr: dict[str, float]
    better: dict[str, bool | None]
    n: int
    shots: int | None
    version: str
    group: str | None


class LmTasks(Options):
    """``tasks`` names tasks, groups and tags of lm-eval; definitions below ``include_path`` override lm-eval's own.

    Each task is identified by its definition and the files that it refers to (:meth:`reads`). ``retain`` names the
    tasks that Retain counts, as ``task/metric`` if not by the main metric; it changes no score.
    """

    group: ClassVar[str] = "evaluation"

    tasks: Annotated[tuple[str, ...], Field(strict=False, min_length=1), As(sorted)]
    include_path: Annotated[str | None, Place] = None
    retain: Annotated[tuple[str, ...], Field(strict=False), Place] = ()

    def check_options(self) -> None:
        if twice := [name for name in self.tasks if self.tasks.count(name) > 1]:
            raise UserError(f"evaluation.tasks names {twice[0]} twice; name each task once.")
        if self.include_path is not None and not typed_path(self.include_path).is_dir():
            raise UserError(
                f"evaluation.include_path={self.include_path} is not a folder; give the one that holds the tasks' YAML."
            )

    @property
    def folder(self) -> Path | None:
        """The folder of the user's own definitions, or None."""
        return None if self.include_path is None else typed_path(self.include_path)

    def reads(self) -> dict[str, str]:
        """The identity of the tasks: name → digest of a definition or of data, or the version of lm-eval."""
        found: dict[str, str] = {}
        for name in self.tasks:
            if self.folder is None:
                found |= own_mark(name)
            else:
                found |= described(name, self.folder) | replaced_members(name, self.folder)
        return dict(sorted(found.items()))

    def defined(self) -> dict[str, list[Definition]]:
        """Name → its definitions, the user's own before lm-eval's, with those of a group's members.

        Raises:
            UserError: a name has no definition, or a YAML is broken.
        """
        return {name: self._defined(name) for name in self.tasks}

    def _defined(self, name: str) -> list[Definition]:
        folders = [folder for folder in (self.folder, built_in()) if folder is not None]
        if found := all_definitions(name, folders):
            listed = [(each.name, member) for each in found for member in each.named]
            lost = next((pair for pair in listed if not all_definitions(pair[1], folders)), None)
            if lost is not None:
                raise UserError(
                    f"evaluation.tasks: the group {lost[0]} lists {lost[1]}, which no YAML defines; correct that name."
                )
            return found
        known = [each for folder in folders for each in names(folder)]
        close = difflib.get_close_matches(name, known, n=4, cutoff=0.6)
        near = f"; similar names are {', '.join(dict.fromkeys(close))}" if close else ""
        where = "is neither below evaluation.include_path nor" if self.folder is not None else "is not"
        raise UserError(
            f"evaluation.tasks names {name}, which {where} a task, group or tag of lm-eval{near}; type one of its "
            "names, or the folder of your own definitions as evaluation.include_path=DIR."
        )

    def counted(self) -> list[Counted]:
        """The tasks of lm-eval that Retain counts."""
        return [each for each in counted(self.retain, self.scored(self.retain)) if not each.ours]

    def scored(self, retain: Sequence[str]) -> list[str]:
        """The names that ``retain`` may use: those in ``tasks``, and where one is not, those of tags and groups inside.

        Raises:
            UserError: a name in ``tasks`` has no definition.
        """
        if all(word in (*ORDER, *self.tasks) for word in retain):
            return [*self.tasks]
        inner = [each.name for found in self.defined().values() for each in found]
        return [*dict.fromkeys([*self.tasks, *inner])]


def counted(retain: Sequence[str], tasks: Collection[str], *, option: str = RETAIN) -> list[Counted]:
    """The entries of ``evaluation.retain``, or of another ``option``; ``tasks`` are the lm-eval tasks that are scored.

    Raises:
        UserError: a name is not scored, or appears twice.
    """
    found = [_counted(word, tasks, option) for word in retain]
    names = [(each.name, each.ours) for each in found]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise UserError(f"{option} names {twice[0]} twice; name each once.")
    return found


def _counted(word: str, tasks: Collection[str], option: str) -> Counted:
    name, _, metric = word.removeprefix(THEIRS).partition("/")
    if not word.startswith(THEIRS) and name in ORDER:
        if metric:
            raise UserError(f"{option}={word}: {name} counts by its headline score; type {name}.")
        return Counted.benchmark(name)
    if name not in tasks:
        scored = ", ".join([*ORDER, *tasks])
        raise UserError(
            f"{option} names {word}, which is not scored; choose among {scored}, or add it to evaluation.tasks."
        )
    return Counted(name, ours=False, metric=metric or None)


def metric_of(metrics: Collection[str], asked: Counted) -> str | None:
    """The metric by which Retain counts a task: the one that was typed, else the first; None if the task lacks it.

    Args:
        metrics: names of the task's scores, its main one first: ``acc``, or ``exact_match,strict-match`` with a filter.
    """
    wanted = None if asked.metric is None else asked.metric.replace("/", ",")
    return next((each for each in metrics if wanted is None or wanted in (each, _bare(each))), None)


def check_counted(
    metrics: Collection[str], better: Mapping[str, bool | None], asked: Counted, *, option: str = RETAIN
) -> None:
    """Refuse a metric whose drop in points has no meaning: lower is better, or it is not a fraction of 1.

    ``better`` tells for each metric whether higher is better, None if lm-eval does not know. Raises UserError.
    """
    if not metrics:
        raise UserError(
            f"{option}: {asked.name} has no score of its own; name its tasks one by one in evaluation.tasks."
        )
    chosen = metric_of(metrics, asked)
    rising = [each.replace(",", "/") for each in metrics if better.get(_bare(each)) and _bare(each) not in HUNDREDS]
    others = f"type {asked.name}/{rising[0]}" if rising else "leave it out"
    if chosen is None:
        raise UserError(f"{option}: {asked.name} has no metric {asked.metric or ''}; {others}.")
    higher = better.get(_bare(chosen))
    if higher and _bare(chosen) not in HUNDREDS:
        return
    why = {True: "goes up to 100", False: "is better when lower", None: UNKNOWN}[higher]
    raise UserError(
        f"{option}: {asked.name} counts by {chosen}, which {why}, and Retain is a drop of fractions in "
        f"points; {others}."
    )


def _bare(metric: str) -> str:
    """The name of a metric without its filter."""
    return metric.partition(",")[0]


def parted(raw: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The section ``evaluation`` in two: without the fields of :class:`LmTasks`, and these fields."""
    return {key: value for key, value in raw.items() if key not in FIELDS}, {
        key: raw[key] for key in FIELDS if key in raw
    }
