"""Records that carry a wanted stage's name and are not it: counted and explained, never averaged in."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import zip_longest
from typing import Any

from hiplora.stages.base import Stage
from hiplora.stages.store import Store

INSIDE = {"of", "train", "adapters", "parent"}  # say where in a stage a field lies, not which field it is


def ignored_notes(store: Store, wanted: Sequence[Stage]) -> Iterator[str]:
    """One sentence on the records that are named as a wanted stage is and differ from it in what was asked."""
    by_name = defaultdict(list)
    for stage in wanted:
        by_name[stage.kind, stage.name()].append(stage)
    ids = {stage.id for stage in wanted}
    reasons: Counter[str] = Counter()
    for key, name in store.tracked.names().items():
        if key[0] not in ids and name in by_name and (record := store.tracked.get(key)) is not None:
            reasons[min((difference(record.asked, stage.described()) for stage in by_name[name]), key=len)] += 1
    if reasons:
        yield (
            f"{reasons.total()} other record(s) of the same methods, tasks and seeds are left out, as they were made "
            f"under other settings: {'; '.join(f'{reason} ({count})' for reason, count in reasons.most_common())}."
        )


def difference(theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> str:
    """In what two identities differ, as ``training.steps=20, not 60``."""
    left, right, shown = fields(theirs), fields(ours), []
    for name in dict.fromkeys([*left, *right]):
        pairs = zip_longest(left.get(name, []), right.get(name, []))
        for one, other in [pair for pair in pairs if pair[0] != pair[1]][:1]:
            file = name.removeprefix("reads.")
            shown.append(f"{name}={one}, not {other}" if file == name else f"another {file}")
    return " and ".join([*shown[:3], *([f"{len(shown) - 3} more"] if len(shown) > 3 else [])])


def fields(asked: Any, name: str = "") -> dict[str, list[Any]]:
    """Values of every field of an identity by its name, such as ``training.steps``; of several adapters, of each."""
    if isinstance(asked, list) and any(isinstance(item, Mapping) for item in asked):
        inner = [fields(item, name) for item in asked]
    elif isinstance(asked, Mapping):
        names = {key: name if key in INSIDE else f"{name}.{key}" if name else key for key in asked}
        inner = [fields(value, names[key]) for key, value in asked.items()]
    else:
        return {name: [asked]}
    found: dict[str, list[Any]] = defaultdict(list)
    for key, values in (pair for part in inner for pair in part.items()):
        found[key] += values
    return found
