"""Configurations of all runs of a grid, without composing each of them.

Hydra takes a tenth of a second per composition, a table has dozens of runs. The values of an axis are composed
once, with the other axes held at a reference run; a run is then put together from the top-level fields
(method, task, seed …) that each of its values changed. Values that change the same field are composed together.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from typing import Any

from hiplora.config import RunConfig
from hiplora.errors import UserError
from hiplora.report.experiment import Wanted

Compose = Callable[[Sequence[str]], RunConfig]
Changes = dict[str, Any]
Place = tuple[int, tuple[str, ...]]  # an axis, and the overrides of one of its values
Parts = tuple[Place, ...]


def compose_all(runs: Sequence[Wanted], compose: Compose) -> list[RunConfig | UserError]:
    """The configuration of each run, in order, or the error that its composition raises."""
    composed: dict[int, RunConfig | UserError] = {}
    for product in dict.fromkeys((run.group, run.fixed) for run in runs):
        members = [position for position, run in enumerate(runs) if (run.group, run.fixed) == product]
        composed.update(zip(members, _product([runs[i] for i in members], compose), strict=True))
    return [composed[position] for position in range(len(runs))]


def _product(runs: list[Wanted], compose: Compose) -> list[RunConfig | UserError]:
    start, reference = _reference(runs, compose)
    if isinstance(reference, UserError):
        return [reference] * len(runs)
    known: dict[Parts, Changes | UserError] = {}

    def changes(parts: Parts) -> Changes | UserError:
        if parts not in known:
            known[parts] = _changes(_swap(start, parts), reference, compose)
        return known[parts]

    def assemble(run: Wanted) -> RunConfig | UserError:
        apart = [(axis, part) for axis, part in enumerate(run.parts) if part != start.parts[axis]]
        alone = {place: changes((place,)) for place in apart}
        tangled = tuple(place for place in apart if _overlaps(place, alone))
        found = [alone[place] for place in apart if place not in tangled]
        return _combine(reference, [*found, *([changes(tangled)] if tangled else [])])

    return [assemble(run) for run in runs]


def _overlaps(place: Place, alone: dict[Place, Changes | UserError]) -> bool:
    """Whether a value changes a field that the value of another axis changes too."""
    mine = alone[place]
    others = [changes for other, changes in alone.items() if other != place]
    return not isinstance(mine, UserError) and any(
        not isinstance(changes, UserError) and mine.keys() & changes.keys() for changes in others
    )


def _reference(runs: list[Wanted], compose: Compose) -> tuple[Wanted, RunConfig | UserError]:
    """The first run that composes, looking at one run per value of the first axis; else the first error."""
    firsts = {run.parts[:1]: run for run in reversed(runs)}
    candidates = [run for run in runs if firsts[run.parts[:1]] is run]
    results = ((run, _attempt(run, compose)) for run in candidates)
    first = next(results)
    if not isinstance(first[1], UserError):
        return first
    return next(((run, result) for run, result in results if not isinstance(result, UserError)), first)


def _swap(run: Wanted, parts: Parts) -> Wanted:
    swapped = dict(parts)
    return replace(run, parts=tuple(swapped.get(axis, part) for axis, part in enumerate(run.parts)))


def _attempt(run: Wanted, compose: Compose) -> RunConfig | UserError:
    try:
        return compose(run.overrides)
    except UserError as error:
        return error


def _changes(run: Wanted, reference: RunConfig, compose: Compose) -> Changes | UserError:
    """Top-level fields in which a run differs from the reference."""
    config = _attempt(run, compose)
    if isinstance(config, UserError):
        return config
    names = [field.name for field in fields(reference)]
    return {name: getattr(config, name) for name in names if getattr(config, name) != getattr(reference, name)}


def _combine(reference: RunConfig, found: list[Changes | UserError]) -> RunConfig | UserError:
    together: Changes = {}
    for changes in found:
        if isinstance(changes, UserError):
            return changes
        together.update(changes)
    return replace(reference, **together)
