"""Which candidate of a method wins: the objective J, and the ranking by it. Pure functions of measured numbers."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import mean
from typing import Literal

from hiplora.errors import UserError
from hiplora.selection import Matched, Trial

Part = Literal["text", "retain_nll"]


def objective(runs: Sequence[Matched], reference: Sequence[Matched], parts: Sequence[Part]) -> float | None:
    """J: forgetting at equal learning, relative to the reference; None if no run reached its level.

    For each task and part, the mean over the runs that reached the level is divided by the mean over the reference's
    runs; J is the mean of these ratios. A reference run that never reaches its level still counts, at the scale at
    which it has learned most, because it only sets the unit.
    """
    ratios = []
    for task in dict.fromkeys(run.task for run in runs if run.reached):
        mine = [run for run in runs if run.task == task and run.reached]
        theirs = [run for run in reference if run.task == task]
        ratios += [_mean(mine, part) / _mean(theirs, part) for part in parts]
    return mean(ratios) if ratios else None


def check_reference(reference: Sequence[Matched], parts: Sequence[Part]) -> None:
    """Refuse a reference that has forgotten nothing of a part, which leaves no unit for it. Raises UserError."""
    for task in dict.fromkeys(run.task for run in reference):
        for part in parts:
            unit = _mean([run for run in reference if run.task == task], part)
            if unit <= 0:
                raise UserError(
                    f"The reference's {part} on {task} is {unit:+.4f} at the level: it has forgotten nothing there, so "
                    "nothing can be measured against it; leave this part out of pipeline.objective."
                )


def _mean(runs: Sequence[Matched], part: Part) -> float:
    return mean(getattr(run, part) for run in runs)


def ranked(trials: Sequence[Trial]) -> list[Trial]:
    """The candidates by ascending J; ties keep the order in which they were tried.

    Those that never reach the level come last, by ascending lowest own NLL.
    """
    return sorted(trials, key=_place)


def _place(trial: Trial) -> tuple[bool, float]:
    return (True, trial.first.lowest) if trial.objective is None else (False, trial.objective)


def finalists(trials: Sequence[Trial], number: int, *, gate: float | None) -> list[Trial]:
    """The ``number`` best; with a gate, also the ``number`` best of those that pass it."""
    able = ranked(trials)
    gated = [] if gate is None else [trial for trial in able if passes(trial, gate)]
    chosen = [*able[:number], *gated[:number]]
    return [trial for trial in able if trial in chosen]


def passes(trial: Trial, gate: float) -> bool:
    """Whether the principal channel holds at least this share of the update's energy in every adapter."""
    shares = [run.channel_share for run in (trial.first, *trial.runs)]
    return all(share is not None and share >= gate for share in shares)


def missed(trial: Trial) -> int:
    """How many runs of the finals never reach their level; without finals, of the first round."""
    return sum(not run.reached for run in trial.runs or (trial.first,))


def winner(trials: Sequence[Trial], *, gate: float | None = None) -> Trial | None:
    """The candidate that misses the level least often and, of these, has the lowest J; None if no run reached it.

    If any candidate was in the finals, only finalists can win, by their numbers there; else the first round decides.
    With a ``gate``, only candidates that pass it can win.
    """
    finals = any(trial.runs for trial in trials)
    scored = [(trial.final if finals else trial.objective, trial) for trial in ranked(trials)]
    able = [(score, trial) for score, trial in scored if score is not None and (gate is None or passes(trial, gate))]
    return min(able, key=lambda pair: (missed(pair[1]), pair[0]))[1] if able else None
