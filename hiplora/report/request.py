"""What a user asks of an experiment: settings for its runs, a part of its grid, options of Hydra itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from hiplora.config import RunConfig
from hiplora.errors import UserError
from hiplora.report.experiment import Experiment, Wanted
from hiplora.report.grid import Compose, compose_all


@dataclass(frozen=True, kw_only=True)
class Request:
    """A user's overrides, told apart: settings of every run, a part of the grid, options of Hydra itself."""

    settings: tuple[str, ...]
    part: dict[str, set[str]]
    hydra: tuple[str, ...]

    def wants(self, run: Wanted) -> bool:
        """Whether a run lies in the part of the grid that was asked for."""
        return all(run.point[axis] in chosen for axis, chosen in self.part.items() if axis in run.point)


def request(experiment: Experiment, overrides: Sequence[str]) -> Request:
    """Sort the overrides.

    Raises:
        UserError: a word that is no override, a value that the experiment's grid does not have, force=true.
    """
    settings: list[str] = []
    part: dict[str, set[str]] = {}
    hydra: list[str] = []
    axes = {axis for group in experiment.groups.values() for axis in group.axes}
    for word in overrides:
        key, equals, value = word.partition("=")
        if not equals:
            raise UserError(f"{word!r} is no override; type key=value, e.g. scale=mini.")
        if key == "force":
            raise UserError("A table reuses its records; to redo one run type python -m hiplora.run … force=true.")
        if key.startswith("hydra"):
            hydra.append(word)
        elif key in axes:
            part[key] = _part(experiment, key, value)
        else:
            settings.append(word)
    return Request(settings=tuple(settings), part=part, hydra=tuple(hydra))


def _part(experiment: Experiment, axis: str, value: str) -> set[str]:
    chosen = set(value.split(","))
    known = [key for group in experiment.groups.values() for key in group.axes.get(axis, {})]
    if unknown := sorted(chosen - set(known)):
        choice = ", ".join(dict.fromkeys(known))
        raise UserError(f"{axis}={','.join(unknown)} is not part of {experiment.name}; choose among {choice}.")
    return chosen


def with_settings(wanted: list[Wanted], settings: Sequence[str], compose: Compose) -> list[Wanted]:
    """Give every run the user's settings, but for those it fixes itself, as they are what its row means.

    An option of a method goes to the rows whose method has it.

    Raises:
        UserError: a setting that no run takes.
    """
    general = [word for word in settings if not word.startswith("method.")]
    special = [word for word in settings if word.startswith("method.")]
    bare = compose_all(wanted, compose) if special else []
    given = []
    for position, run in enumerate(wanted):
        own = {word.split("=", 1)[0] for word in run.overrides}
        options = [word for word in special if _has_option(bare[position], word)]
        given.append([word for word in (*general, *options) if word.split("=", 1)[0] not in own])
    if idle := sorted(set(settings) - {word for words in given for word in words}):
        raise UserError(f"{', '.join(idle)} applies to no row: no method here has it, or every row fixes it itself.")
    return [replace(run, fixed=(*words, *run.fixed)) for run, words in zip(wanted, given, strict=True)]


def _has_option(config: RunConfig | UserError, word: str) -> bool:
    return hasattr(config, "method") and hasattr(config.method, word.split("=")[0].removeprefix("method."))
