"""Records that carry a wanted stage's name and are not it: counted and explained, never averaged in."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import zip_longest
from typing import Any

from hiplora.report.frame import Entry
from hiplora.stages.store import Store

INSIDE = {"of", "train", "adapters", "parent"}  # say where in a stage a field lies, not which field it is


def ignored_notes(store: Store, wanted: Sequence[Entry]) -> Iterator[str]:
    """One sentence on the records that are named as a wanted stage is and differ from it in what was asked."""
    stages = {entry.stage.id: (entry.stage, entry.record) for entry in wanted if entry.stage is not None}
    by_name = defaultdict(list)
    for stage, record in stages.values():
        by_name[stage.kind, stage.name()].append((stage, record))
    reasons: Counter[str] = Counter()
    for key, name in store.tracked.names().items():
        if key[0] not in stages and name in by_name and (other := store.tracked.get(key)) is not None:
            # A stage's record spells out what the stage does.
            alike = [record.asked if record is not None else stage.described() for stage, record in by_name[name]]
            reasons[min((difference(other.asked, asked) for asked in alike), key=len)] += 1
    if reasons:
        yield (
            f"{reasons.total()} other record(s) of the same methods, tasks and seeds are left out, as they were made "
            f"under other settings: {'; '.join(f'{reason} ({count})' for reason, count in reasons.most_common())}."
        )


def difference(theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> str:
    """In what two identities differ, as ``training.steps=20, not 60``."""
    shown: dict[str, str] = {}
    for name, one, other in _apart(theirs, ours):
        file = name.removeprefix("reads.")
        shown.setdefault(name, f"{name}={one}, not {other}" if file == name else f"another {file}")
    more = [f"{len(shown) - 3} more"] if len(shown) > 3 else []
    return " and ".join([*list(shown.values())[:3], *more]) or "an earlier version of the code"


def _apart(one: Any, other: Any, name: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Every field in which two identities differ, by its name, such as ``training.steps``; of adapters, of each."""
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        for key in [*one, *(key for key in other if key not in one)]:
            inner = name if key in INSIDE else f"{name}.{key}" if name else key
            yield from _apart(one.get(key), other.get(key), inner) if one.get(key) != other.get(key) else ()
    elif isinstance(one, list) and isinstance(other, list) and any(isinstance(item, Mapping) for item in one):
        for pair in zip_longest(one, other):
            yield from _apart(*pair, name) if pair[0] != pair[1] else ()
    else:
        yield name, one, other
