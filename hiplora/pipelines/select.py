"""Pipeline ``select``: chooses every method's settings at equal learning on validation, and the levels of learning.

Each method searches in stages: the next stage varies other settings around the best candidate so far. The best few
are tried again on more tasks and seeds. The output is derived from records alone, so the command can be interrupted and
typed again, and several processes can run it at once and share the work.
"""

from __future__ import annotations

from collections.abc import Collection, Generator, Iterable, Mapping, Sequence
from typing import Annotated, Any, ClassVar

from pydantic import Field

from hiplora import models, selection
from hiplora.config import Fraction, Natural, Options, Scale, Seed
from hiplora.errors import UserError
from hiplora.pipelines.base import Config, Stages, replayed
from hiplora.pipelines.choice import Part, check_reference, finalists, objective, ranked, winner
from hiplora.pipelines.frontier import Frontiers
from hiplora.pipelines.selected_page import lines_to_write, page, to_write
from hiplora.pipelines.trials import Run, Runs, Words, option
from hiplora.selection import Matched, Reference, Selection, Trial
from hiplora.stages.energy import MOVES
from hiplora.stages.make import Wanted
from hiplora.stages.record import Record

Overrides = Annotated[tuple[str, ...], Field(strict=False)]
Seeds = Annotated[tuple[Seed, ...], Field(strict=False, min_length=1)]
Names = Annotated[tuple[str, ...], Field(strict=False, min_length=1)]
Steps = Generator[Sequence[Wanted], list[Record], Any]


class Grid(Options):
    """The candidates of one method: the overrides ``start``, which state every setting that a stage varies, and stages.

    The grid's name is the option of the group ``method`` that takes the winner's settings. ``finalists`` is the number
    of candidates that are tried again; 0 takes the best of the first round. ``gated`` also looks for the best candidate
    whose principal channel moves.
    """

    group: ClassVar[str] = "pipeline.methods.METHOD"

    start: Overrides
    stages: Annotated[tuple[Overrides, ...], Field(strict=False, min_length=1)]
    finalists: Natural
    gated: bool

    def check_options(self) -> None:
        if "method" not in map(option, self.start):
            raise UserError("pipeline.methods: a start must choose a method; begin it with method=….")


class Select(Frontiers):
    """``methods`` maps each method to its grid. The winner of ``levels_by`` sets the levels of ``level_tasks``: the own
    NLL with the share ``level_gain`` of its largest gain, averaged over ``level_seeds``.

    ``against`` are the overrides of the reference. During selection the level of a task is the mean over
    ``level_seeds`` of the reference's own NLL at ``level_scale``. The first round runs on ``task`` with ``seed``, the
    finals on ``final_tasks`` with ``final_seeds``. ``words`` are overrides of all runs.
    """

    many: ClassVar[bool] = True

    words: Overrides
    against: Overrides
    task: str
    seed: Seed
    final_tasks: Names
    final_seeds: Seeds
    level_tasks: Names
    level_seeds: Seeds
    level_scale: Scale
    level_gain: Fraction
    levels_by: str
    objective: Annotated[tuple[Part, ...], Field(strict=False, min_length=1)]
    methods: Annotated[dict[str, Annotated[Grid, Field(strict=False)]], Field(strict=False, min_length=1)]

    def check_options(self) -> None:
        super().check_options()
        if self.levels_by not in self.methods:
            raise UserError(f"pipeline.levels_by={self.levels_by} is none of {', '.join(self.methods)}.")
        if not self.scales[0] <= self.level_scale <= self.scales[-1]:
            raise UserError(f"pipeline.level_scale={self.level_scale} is outside the range of pipeline.scales.")

    @property
    def sets(self) -> Collection[str]:
        grids = [(*grid.start, *(word for stage in grid.stages for word in stage)) for grid in self.methods.values()]
        words = [word for words in (self.words, self.against, *grids) for each in words for word in each.split()]
        return {"method", "task", "seed", "evaluation.splits", *map(option, words)}

    def stages(self, config: Config) -> Stages:
        return self._steps(config)

    def conclude(self, config: Config, found: Mapping[str, Record]) -> str:
        """Write the selection and its page, and return what to write into conf/; replays the steps from records."""
        chosen: Selection = replayed(self._steps(config), found)
        shown = page(chosen, scale=config.scale)
        written = selection.write(config.places.results, chosen, shown, force=config.force)
        lines = [f"Written: {path}" for path in written]
        return "\n".join([*lines, *lines_to_write(to_write(chosen, scale=config.scale))])

    def _steps(self, config: Config) -> Generator[Sequence[Wanted], list[Record], Selection]:
        runs = Runs(self, config)
        self._check(runs)
        first = _Round(self, runs, (self.task,), (self.seed,))
        trials: dict[str, list[Trial]] = {name: [] for name in self.methods}
        for number in range(max(len(grid.stages) for grid in self.methods.values())):
            asked = {name: self._candidates(name, number, trials[name]) for name in self.methods}
            yield from first.make([words for each in asked.values() for words in each])
            for name, candidates in asked.items():
                trials[name] += [first.trial(name, number + 1, words) for words in candidates]
        last = _Round(self, runs, self.final_tasks, self.final_seeds)
        chosen = {name: finalists(trials[name], g.finalists, gate=self._gate(g)) for name, g in self.methods.items()}
        if any(chosen.values()):
            yield from last.make([trial.words for each in chosen.values() for trial in each])
            for name in self.methods:
                trials[name] = [last.finished(t) if t in chosen[name] else t for t in trials[name]]
        won = winner(trials[self.levels_by])
        if won is None:
            raise UserError(
                f"No candidate of {self.levels_by} ever reaches the level, so there are no levels to compare methods "
                "at; lower pipeline.level_scale, or give it other settings to try."
            )
        yield from _make(runs, [Run(won.words, task, seed) for task in self.level_tasks for seed in self.level_seeds])
        return self._selection(runs, trials, won, [first, last] if any(chosen.values()) else [first])

    def _check(self, runs: Runs) -> None:
        """Refuse, before anything is computed, trials that do not compose and a start that leaves out a varied setting.

        Such a setting would come from conf/, so the candidates would change once conf/ holds what was selected.
        """
        runs.settings(self.typed_words(self.against))
        for name, grid in self.methods.items():
            start = self.typed_words(grid.start)
            stated = {option(word) for words in (*start, *grid.stages[0]) for word in words.split()}
            for words in (words for stage in grid.stages for words in stage):
                runs.settings(self.typed_words((*start, *words.split())))
                if silent := sorted({option(word) for word in words.split()} - stated):
                    raise UserError(
                        f"pipeline.methods.{name} tries values of {', '.join(silent)}, which its start does not set; "
                        "add it there, so that the trials stay the same once conf/ holds another default."
                    )

    def typed_words(self, words: Iterable[str]) -> Words:
        """The overrides of a run, with those of all trials in front; the last override of an option wins."""
        return tuple({option(word): word for word in (*self.words, *words)}.values())

    def _gate(self, grid: Grid) -> float | None:
        return MOVES if grid.gated else None

    def _candidates(self, name: str, number: int, trials: Sequence[Trial]) -> list[Words]:
        """The overrides of every candidate of a method's stage: the best candidate so far, and one change each."""
        grid = self.methods[name]
        best = ranked(trials)[0].words if trials else grid.start
        stage = grid.stages[number] if number < len(grid.stages) else ()
        return [self.typed_words((*best, *words.split())) for words in stage]

    def _selection(self, runs: Runs, trials: dict[str, list[Trial]], won: Trial, rounds: list[_Round]) -> Selection:
        """The selection, in the form in which it is written."""

        def settings(trial: Trial | None) -> dict[str, Any] | None:
            return None if trial is None else trial.settings

        asked = {t: runs.gained(won.words, t, self.level_seeds, self.level_gain) for t in self.level_tasks}
        adapters = {t: [Run(won.words, t, seed) for seed in self.level_seeds] for t in self.level_tasks}
        before = {task: runs.curve(each[0]).learning[0] for task, each in adapters.items()}  # of the bare backbone
        levels = {task: level for task, level in asked.items() if level < before[task]}
        standards = {(m.task, m.seed): m for each in rounds for m in each.standards}
        model = runs.config.model
        return Selection(
            backbone=f"{model.label} ({model.dtype})",
            identity=models.weights(model),
            level_scale=self.level_scale,
            level_gain=self.level_gain,
            gate=MOVES,
            objective=self.objective,
            reference=Reference(
                words=self.typed_words(self.against),
                levels={task: level for each in rounds for task, level in each.levels.items()},
                runs=tuple(standards.values()),
            ),
            winners={name: settings(winner(each)) for name, each in trials.items()},
            gated={name: settings(winner(trials[name], gate=MOVES)) for name, g in self.methods.items() if g.gated},
            levels=levels,
            levels_from={task: [runs.ids(run)[2] for run in adapters[task]] for task in levels},
            left_out={
                task: f"{level:.4f} nats would be its level, which is not below the backbone's own {before[task]:.4f}"
                for task, level in asked.items()
                if task not in levels
            },
            trials=[trial for each in trials.values() for trial in each],
        )


class _Round:
    """Runs of candidates on the same tasks and seeds, and the runs of the reference that they are compared with."""

    def __init__(self, select: Select, runs: Runs, tasks: Sequence[str], seeds: Sequence[int]) -> None:
        self.select, self.runs, self.tasks, self.seeds = select, runs, tasks, seeds
        self.levels: dict[str, float] = {}
        self.standards: list[Matched] = []

    def make(self, candidates: Sequence[Words]) -> Steps:
        """Ask for the candidates' runs; the first call asks for the reference's runs before, which set the levels."""
        if not self.levels:
            reference = self.select.typed_words(self.select.against)
            seeds = dict.fromkeys((*self.select.level_seeds, *self.seeds))
            yield from _make(self.runs, [Run(reference, task, seed) for task in self.tasks for seed in seeds])
            scale = self.select.level_scale
            self.levels = {t: self.runs.level(reference, t, self.select.level_seeds, scale) for t in self.tasks}
            self.standards = self._matched(reference)
            check_reference(self.standards, self.select.objective)
        yield from _make(self.runs, [run for words in candidates for run in self._of(words)])

    def trial(self, method: str, stage: int, words: Words) -> Trial:
        """The trial of a candidate, from the records of its runs."""
        matched = self._matched(words)
        shared = {option(word) for word in words if word in self.select.words}  # the same in all trials: not chosen
        settings = {name: value for name, value in self.runs.settings(words).items() if name not in shared}
        return Trial(
            method=method,
            stage=stage,
            words=words,
            settings=settings,
            first=matched[0],
            objective=self._objective(matched),
        )

    def finished(self, trial: Trial) -> Trial:
        """A finalist with its runs and J of this round."""
        matched = self._matched(trial.words)
        return trial.model_copy(update={"runs": tuple(matched), "final": self._objective(matched)})

    def _of(self, words: Words) -> list[Run]:
        return [Run(words, task, seed) for task in self.tasks for seed in self.seeds]

    def _matched(self, words: Words) -> list[Matched]:
        return [self.runs.matched(run, self.levels[run.task]) for run in self._of(words)]

    def _objective(self, matched: Sequence[Matched]) -> float | None:
        return objective(matched, self.standards, self.select.objective)


def _make(runs: Runs, asked: Sequence[Run]) -> Steps:
    """Ask for the stages of some runs, and store their records in ``runs``."""
    runs.learn((yield runs.wanted(asked)))
