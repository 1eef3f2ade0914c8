"""The text printed for adapters trained elsewhere: scores, what each forgot, where its update lies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from hiplora.report.drift import remaining
from hiplora.report.scores import forgotten, number, tables
from hiplora.stages.energy import TOP
from hiplora.stages.folders import Folder, MergedFolders
from hiplora.stages.results import Drifted
from hiplora.stages.score import Score

if TYPE_CHECKING:
    from hiplora.stages.make import Outcome

NAMED = 4  # modules that a sentence names


def elsewhere(outcomes: Sequence[Outcome], *, retain: Sequence[str] = ()) -> list[str]:
    """The parts of the text; empty if no adapter of the run was trained elsewhere. ``retain``: what Retain counts."""
    scored: list[Any] = [outcome for outcome in outcomes if isinstance(outcome.stage, Score)]
    alone = [outcome for outcome in scored if isinstance(outcome.stage.of, Folder)]
    if not alone:
        return []
    numbered = {outcome.stage.of.path: str(number) for number, outcome in enumerate(alone, start=1)}
    several = len(alone) > 1
    columns = {_title(outcome, numbered, several): outcome.record.result for outcome in scored}
    legend = [f"{number} is {path}" for path, number in numbered.items()] if several else []
    base = next(outcome for outcome in scored if outcome.stage.of.role == "backbone").record.result
    lines = [tables(columns), *legend]
    for outcome in scored:
        of, after = outcome.stage.of, outcome.record.result
        if of.role != "backbone":
            sentence = forgotten(base, after, trained_on=_trained_on(of), retain=retain)
            lines.append(_named(_title(outcome, numbered, several), several) + sentence)
    drifted: list[Any] = [outcome for outcome in outcomes if isinstance(outcome.record.result, Drifted)]
    beside = {outcome.stage.of.path: outcome.record.result.report.get("trained_beside", []) for outcome in alone}
    for each in drifted:
        path = each.stage.of.path
        lines.append(_named(numbered[path], several) + _lies(each.record.result) + _without(beside[path]))
    return lines


def _title(outcome: Any, numbered: dict[str, str], several: bool) -> str:
    of = outcome.stage.of
    if isinstance(of, Folder):
        return numbered[of.path] if several else "adapted"
    return "merged" if isinstance(of, MergedFolders) else "base"


def _trained_on(of: Folder | MergedFolders) -> list[str]:
    """The benchmarks that Retain leaves out: of a merge, those of all its adapters."""
    folders = of.adapters if isinstance(of, MergedFolders) else (of,)
    return [*dict.fromkeys(each.trained_on for each in folders if each.trained_on is not None)]


def _named(title: str, several: bool) -> str:
    return f"{title}: " if several else ""


def _without(beside: Sequence[str]) -> str:
    """What an update's numbers leave out: modules that were trained in full."""
    names = ", ".join(beside[:NAMED]) + (f" and {len(beside) - NAMED} more" if len(beside) > NAMED else "")
    return f"; not in it: {names}, trained in full" if beside else ""


def _lies(drifted: Drifted) -> str:
    """A sentence on where an update lies and how far it moves the leading directions, each beside a random update."""
    measures = drifted.measures
    shares = [measures.get(name) for name in ("top_share", "top_share_random")]
    share, chance = (None if value is None else 100 * value for value in shares)
    return (
        f"Update of norm {number(measures.get('update_norm'))}: {number(share, '.1f')} % of its energy in the {TOP} "
        f"leading directions (random {number(chance, '.1f')} %); {remaining(drifted)}"
    )
