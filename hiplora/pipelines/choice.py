"""Which candidate of a method wins: the objective J, and the order by it. Pure functions of what was measured."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import mean
from typing import Literal

from hiplora.errors import UserError
from hiplora.selection import Matched, Trial

Part = Literal["text", "retain_nll"]


def objective(runs: Sequence[Matched], reference: Sequence[Matched], parts: Sequence[Part]) -> float | None:
    """J: what was forgotten at equal learning, each part over the reference's; None where an adapter never got there.

    Per task and part it is the mean over the seeds over the reference's mean over the same seeds; J is the mean of
    these ratios. The reference itself counts where it has learned most if it never reaches its level: it only scales.

    Raises:
        UserError: the reference has forgotten nothing of a part, so that nothing can be measured against it.
    """
    if not all(run.reached for run in runs):
        return None
    ratios = []
    for task in dict.fromkeys(run.task for run in runs):
        mine = [run for run in runs if run.task == task]
        seeds = {run.seed for run in mine}
        theirs = [run for run in reference if run.task == task and run.seed in seeds]
        for part in parts:
            over = mean(getattr(run, part) for run in theirs)
            if over <= 0:
                raise UserError(
                    f"The reference's {part} on {task} is {over:+.4f} at the level: it has forgotten nothing there, so "
                    "nothing can be measured against it; leave it out of pipeline.objective."
                )
            ratios.append(mean(getattr(run, part) for run in mine) / over)
    return mean(ratios)


def ranked(trials: Sequence[Trial]) -> list[Trial]:
    """The best candidate first; equal ones in the order in which they were tried.

    Those that never reach the level come last, the one with the lowest own NLL first.
    """
    return sorted(trials, key=_place)


def _place(trial: Trial) -> tuple[bool, float]:
    return (True, trial.first.lowest) if trial.objective is None else (False, trial.objective)


def finalists(trials: Sequence[Trial], number: int, *, gate: float | None) -> list[Trial]:
    """The ``number`` best that reach the level; with a gate, as many of those that pass it, too."""
    able = [trial for trial in ranked(trials) if trial.objective is not None]
    gated = [] if gate is None else [trial for trial in able if passes(trial, gate)]
    chosen = [*able[:number], *gated[:number]]
    return [trial for trial in able if trial in chosen]


def passes(trial: Trial, gate: float) -> bool:
    """Whether the principal channel holds at least this share of the update's energy in every adapter."""
    shares = [run.channel_share for run in (trial.first, *trial.runs)]
    return all(share is not None and share >= gate for share in shares)


def winner(trials: Sequence[Trial], *, gate: float | None = None) -> Trial | None:
    """The best by the finals, or by the first round where there were none; None where nobody reached the level."""
    finals = any(trial.runs for trial in trials)
    scored = [(trial.final if finals else trial.objective, trial) for trial in ranked(trials)]
    able = [(score, trial) for score, trial in scored if score is not None and (gate is None or passes(trial, gate))]
    return min(able, key=lambda pair: pair[0])[1] if able else None
