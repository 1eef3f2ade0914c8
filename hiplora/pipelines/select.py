"""Pipeline ``select``: settings of every method, chosen at equal learning on validation, and the levels of learning.

Each method tries its settings in stages: the first one's, then at the best of these the next one's. The best few are
tried again on more tasks and seeds. What is written is derived from records alone, so that the command can be stopped,
typed again, and typed twice side by side: such processes share the work.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping, Sequence
from typing import Annotated, Any, ClassVar

from pydantic import Field

from hiplora import selection
from hiplora.config import Natural, Options, Scale, Seed
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
    """What one method tries: ``start`` with every setting that a stage changes, then the candidates of each stage.

    The grid's name is the option of the group ``method`` that takes the winner's settings. ``finalists`` of the
    candidates are tried again; 0 takes the best of the first round. ``gated`` also looks for the best whose
    principal channel moves.
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
    """``methods`` are the grids; the settings of ``levels_by``'s winner give the levels of ``level_tasks``.

    ``against`` are the overrides of the reference. The level of a trial's task is the mean over ``level_seeds`` of the
    reference's own NLL at ``level_scale``. Trials are of ``task`` and ``seed``, finals of ``final_tasks`` and
    ``final_seeds``. ``words`` are overrides of all.
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
    levels_by: str
    objective: Annotated[tuple[Part, ...], Field(strict=False, min_length=1)]
    methods: Annotated[dict[str, Annotated[Grid, Field(strict=False)]], Field(strict=False, min_length=1)]

    def check_options(self) -> None:
        super().check_options()
        if self.levels_by not in self.methods:
            raise UserError(f"pipeline.levels_by={self.levels_by} is none of {', '.join(self.methods)}.")
        if not self.scales[0] <= self.level_scale <= self.scales[-1]:
            raise UserError(f"pipeline.level_scale={self.level_scale} lies outside of pipeline.scales.")

    def stages(self, config: Config) -> Stages:
        return self._steps(config)

    def conclude(self, config: Config, found: Mapping[str, Record]) -> str:
        """Write what was selected; the steps are gone through again, with the records that they led to."""
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
                f"No candidate of {self.levels_by} ever reaches the level, so there are none to compare methods at; "
                "lower pipeline.level_scale, or give it other settings to try."
            )
        yield from _make(runs, [Run(won.words, task, seed) for task in self.level_tasks for seed in self.level_seeds])
        return self._selection(runs, trials, won, [first, last] if any(chosen.values()) else [first])

    def _check(self, runs: Runs) -> None:
        """Refuse before anything is computed what would not compose, or a start that does not say all that is tried.

        With such a start the candidates would be others once conf/ holds what was selected.
        """
        runs.settings(self.typed_words(self.against))
        for name, grid in self.methods.items():
            start = self.typed_words(grid.start)
            stated = {option(word) for words in (*start, *grid.stages[0]) for word in words.split()}
            for words in (words for stage in grid.stages for words in stage):
                runs.settings(self.typed_words((*start, *words.split())))
                if silent := sorted({option(word) for word in words.split()} - stated):
                    raise UserError(
                        f"pipeline.methods.{name} tries values of {', '.join(silent)} and its start states none; add "
                        "it there, so that the trials stay what they are once conf/ holds another default."
                    )

    def typed_words(self, words: Iterable[str]) -> Words:
        """The overrides of a run, those of all trials included; of two for the same option the last one."""
        return tuple({option(word): word for word in (*self.words, *words)}.values())

    def _gate(self, grid: Grid) -> float | None:
        return MOVES if grid.gated else None

    def _candidates(self, name: str, number: int, trials: Sequence[Trial]) -> list[Words]:
        """The words of every candidate of a method's stage: the best so far, and one change."""
        grid = self.methods[name]
        best = ranked(trials)[0].words if trials else grid.start
        stage = grid.stages[number] if number < len(grid.stages) else ()
        return [self.typed_words((*best, *words.split())) for words in stage]

    def _selection(self, runs: Runs, trials: dict[str, list[Trial]], won: Trial, rounds: list[_Round]) -> Selection:
        """Everything that was found, in the form in which it is kept."""

        def settings(trial: Trial | None) -> dict[str, Any] | None:
            return None if trial is None else trial.settings

        asked = {t: runs.level(won.words, t, self.level_seeds, self.level_scale) for t in self.level_tasks}
        adapters = {t: [Run(won.words, t, seed) for seed in self.level_seeds] for t in self.level_tasks}
        before = {task: runs.curve(each[0]).learning[0] for task, each in adapters.items()}  # of the bare backbone
        levels = {task: level for task, level in asked.items() if level < before[task]}
        standards = {(m.task, m.seed): m for each in rounds for m in each.standards}
        model = runs.config.model
        return Selection(
            backbone=f"{model.name} ({model.dtype})",
            level_scale=self.level_scale,
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
    """Candidates on the same tasks and seeds, and the reference on them, against which they are measured."""

    def __init__(self, select: Select, runs: Runs, tasks: Sequence[str], seeds: Sequence[int]) -> None:
        self.select, self.runs, self.tasks, self.seeds = select, runs, tasks, seeds
        self.levels: dict[str, float] = {}
        self.standards: list[Matched] = []

    def make(self, candidates: Sequence[Words]) -> Steps:
        """Make the candidates, and before the first of them the reference: without it nothing can be judged."""
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
        """A candidate that was made."""
        matched = self._matched(words)
        shared = {option(word) for word in words if word in self.select.words}  # of all trials, so nothing was chosen
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
        """A finalist with what this round makes of it."""
        matched = self._matched(trial.words)
        return trial.model_copy(update={"runs": tuple(matched), "final": self._objective(matched)})

    def _of(self, words: Words) -> list[Run]:
        return [Run(words, task, seed) for task in self.tasks for seed in self.seeds]

    def _matched(self, words: Words) -> list[Matched]:
        return [self.runs.matched(run, self.levels[run.task]) for run in self._of(words)]

    def _objective(self, matched: Sequence[Matched]) -> float | None:
        return objective(matched, self.standards, self.select.objective)


def _make(runs: Runs, asked: Sequence[Run]) -> Steps:
    """Ask for some runs, and take in their records."""
    runs.learn((yield runs.wanted(asked)))
