"""The marks of numbers: what to know about the records behind them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from hiplora.methods import METHODS, method_class
from hiplora.stages.energy import MOVES
from hiplora.stages.record import Record
from hiplora.stages.results import Adapter
from hiplora.stages.store import Status, Store

RESTORED, STALE, DIRTY, STILL = "†", "‡", "*", "§"
OF_STATUS = {Status.GOOD: "", Status.RESTORED: RESTORED, Status.STALE: STALE}
MEANINGS = {
    RESTORED: "made from an adapter that was trained again, not from the recorded one",
    STALE: "stale: something it was made from has been replaced; it still counts in the numbers, and is planned to be "
    "made again",
    DIRTY: "made from a checkout with uncommitted changes, or from such a record",
    STILL: f"from an adapter whose principal channel holds under {MOVES:.0%} of its update's energy: the adapter is "
    "little more than its residual",
}


def marks_of(record: Record, store: Store) -> str:
    """The marks of a tracked record: its status, and whether * or § holds for it or for one that it was made from."""
    behind = [*_behind(record, store)]
    dirty = any(each.environment.get("git_dirty") for each in behind)
    still = any(map(channel_stands_still, behind))
    return OF_STATUS[store.status(record)] + DIRTY * dirty + STILL * still


def _behind(record: Record, store: Store) -> Iterator[Record]:
    """A record and all tracked ones that it was made from."""
    yield record
    for id in record.needs:
        if (need := store.tracked.get((id, record.where))) is not None:
            yield from _behind(need, store)


def joined(marks: Iterable[str]) -> str:
    """Every mark that occurs, once, in a fixed order."""
    return "".join(sorted({*"".join(marks)}, key=[*MEANINGS].index))


def channel_stands_still(record: Record) -> bool:
    """Whether a training's method has a principal channel that holds less than ``MOVES`` of the update's energy.

    False for other records, if the share was not recorded, and for a method that this checkout does not have.
    """
    result = record.result
    if not isinstance(result, Adapter):
        return False
    name = record.asked["method"]["name"]
    if name not in METHODS or not method_class(name).channel:
        return False
    share = result.measures.get("channel_share")
    return share is not None and share < MOVES
