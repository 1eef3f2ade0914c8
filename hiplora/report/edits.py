"""Runs of pipeline ``edit``: measures of batches of edits and of the bare backbone, straight from the records."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import fmean
from typing import cast

import numpy as np
from numpy.typing import NDArray

from hiplora.evaluation.edit_measures import ALL
from hiplora.report.slots import Entry, Measured, Slot, measured
from hiplora.stages.results import Edited, EditedBatch

PERCENT = (
    *("paraphrase_success", "paraphrase_generated", "paraphrase_preferred"),
    *("neighbourhood", "neighbourhood_begins"),
)
ON_PROBES = ("probe_", "front_")  # beginnings of the names of means over probes; the others are over items
SHOWN = {  # the measures shown of one run, in words
    "success": "success (generated, or new likelier than old), %",
    "generated": "  generated, %",
    "preferred": "  new likelier than old, %",
    "believed": "  success where the backbone believed old, %",
    "paraphrase_success": "paraphrases, success, %",
    "neighbourhood": "neighbours, own answer likelier, %",
    "change": "unrelated prompts, accuracy, signed, pp",
    "flips": "unrelated prompts, flips, %",
    "front_change": "the same behind an edit, accuracy, signed, pp",
    "front_flips": "the same behind an edit, flips, %",
}
Flags = NDArray[np.bool_]
Figures = dict[str, dict[str, float]]  # category, or all → measure → value


@dataclass(frozen=True)
class Pair:
    """One batch before and after its edit, with each model's right answers to the unrelated probes."""

    before: EditedBatch
    after: EditedBatch
    probes_before: Mapping[str, str]
    probes_after: Mapping[str, str]

    @cached_property
    def categories(self) -> dict[str, Flags]:
        """A flag per item for every category, and for :data:`ALL`."""
        found = {name: _flags(text) for name, text in self.after.categories.items()}
        return {ALL: np.ones(len(self.after.outcomes["generated"]), dtype=bool), **found}

    def probed(self, group: str) -> Flags:
        """A flag per probe: whether the edit beside it is of the group. The edits take turns."""
        return np.resize(self.categories[group], len(_joined(self.probes_after)))

    def count(self, group: str, mean: str) -> int:
        """How many items, or probes, a mean of the record is over."""
        over = self.probed(group) if mean.startswith(ON_PROBES) else self.categories[group]
        return int(over.sum())


def pairs(before: Edited, after: Sequence[Edited]) -> list[Pair]:
    """Every batch as the backbone answers it, paired with the adapter that was trained on it."""
    return [
        Pair(base, one.batches[0], before.right, one.right) for base, one in zip(before.batches, after, strict=True)
    ]


def alone(before: Edited) -> list[Pair]:
    """The backbone paired with itself, which has no changes."""
    return [Pair(batch, batch, before.right, before.right) for batch in before.batches]


def figures(found: Sequence[Pair]) -> Figures:
    """Category, or all → measure → value, over the items of all batches; in percent, points and nats per token.

    ``success``, ``generated``, ``begins`` and ``preferred`` are shares of the items; ``believed`` is the success among
    items whose old answer the backbone believed, ``believing`` their share; ``front_change`` and ``front_flips`` are
    those of the probes with an edit in front. For all items together: ``change`` of the probes' accuracy, ``locality``,
    its absolute value, and ``flips``, the share of probes that became right or wrong, each a mean over batches. The
    other measures are the means in the records.
    """
    groups = dict.fromkeys(group for pair in found for group in pair.categories)
    values = {group: {**_outcomes(found, group), **_front(found, group), **_means(found, group)} for group in groups}
    moved = [_moved(_joined(pair.probes_before), _joined(pair.probes_after)) for pair in found]
    changes, flips = zip(*moved, strict=True)
    values[ALL] |= {"change": fmean(changes), "locality": fmean(map(abs, changes)), "flips": fmean(flips)}
    return values


def _outcomes(found: Sequence[Pair], group: str) -> dict[str, float]:
    """Shares of the items of one group, in percent."""
    there = [(pair, pair.categories[group]) for pair in found if group in pair.categories]
    flags = {
        name: np.concatenate([_flags(pair.after.outcomes[name])[inside] for pair, inside in there])
        for name in ("generated", "begins", "preferred")
    }
    flags["success"] = flags["generated"] | flags["preferred"]
    old = np.concatenate([_flags(pair.before.outcomes["believed"])[inside] for pair, inside in there])
    values = {name: _percent(each) for name, each in flags.items()} | {"believing": _percent(old)}
    return {**values, **({"believed": _percent(flags["success"][old])} if old.any() else {})}


def _front(found: Sequence[Pair], group: str) -> dict[str, float]:
    """Changes of the probes that have an edit of one group in front; empty if no probe has."""
    sides = []
    for pair in (pair for pair in found if group in pair.categories):
        both = np.array([_joined(batch.front) for batch in (pair.before, pair.after)])
        sides.append(both[:, pair.probed(group)])
    before, after = np.concatenate(sides, axis=1)
    if not before.size:
        return {}
    change, flips = _moved(before, after)
    return {"front_change": change, "front_flips": flips}


def _means(found: Sequence[Pair], group: str) -> dict[str, float]:
    """The measures that records hold as means, over the items or probes of all batches; shares in percent."""
    there = [(pair, pair.after.means[group]) for pair in found if group in pair.after.means]
    values = {}
    for name in dict.fromkeys(name for _, means in there for name in means):
        known = [(means[name], pair.count(group, name)) for pair, means in there if name in means]
        value = sum(mean * count for mean, count in known) / sum(count for _, count in known)
        values[name] = 100 * value if name in PERCENT else value
    return values


def _moved(before: Flags, after: Flags) -> tuple[float, float]:
    """The change of the share of right answers, in points, and the share that changed either way, in percent."""
    return _percent(after) - _percent(before), _percent(before != after)


def _percent(flags: Flags) -> float:
    return 100 * int(flags.sum()) / len(flags)


def _flags(text: str) -> Flags:
    return np.array([each == "1" for each in text], dtype=bool)


def _joined(texts: Mapping[str, str]) -> Flags:
    """The flags of all probes, benchmark after benchmark."""
    return _flags("".join(texts.values()))


def measures(slots: Sequence[Slot]) -> Iterator[Measured]:
    """``<category>/<x>`` of every run that has all its records, ``bare/<category>/<x>`` of the bare backbone."""
    for number, slot in enumerate(slots):
        base, edited = _entries(slot)
        if base is None:
            continue
        yield from _named(number, "bare/", figures(alone(_result(base))), [base])
        if edited and all(entry.record is not None for entry in edited):
            yield from _named(number, "", figures(pairs(_result(base), [*map(_result, edited)])), [base, *edited])


def _entries(slot: Slot) -> tuple[Entry | None, list[Entry]]:
    """The entries of a run: the backbone's, None without a record, and that of every batch's adapter."""
    found = [entry for entry in slot.entries if entry.role == "edit"]
    base = next((entry for entry in found if not entry.members and entry.record is not None), None)
    return base, [entry for entry in found if entry.members]


def _result(entry: Entry) -> Edited:
    return cast(Edited, entry.result)


def _named(slot: int, prefix: str, found: Figures, entries: Sequence[Entry]) -> Iterator[Measured]:
    for group, values in found.items():
        for name, value in values.items():
            yield measured(slot, f"{prefix}{group}/{name}", value, entries)
