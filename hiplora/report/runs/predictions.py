"""Predictions item by item: right or wrong, and which items flipped between two records."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from hiplora.stages.record import Sample

Items = dict[str, Sample]  # by the item's id
EDITS = "edits"  # the name of what records of edits predict beside the probes, which are items of benchmarks


def by_benchmark(samples: Iterable[Sample]) -> dict[str, Items]:
    """The predictions of each benchmark by item id, in order; those without one under ``edits``."""
    found: dict[str, Items] = {}
    for number, sample in enumerate(samples):
        found.setdefault(sample.get("benchmark", EDITS), {})[str(sample.get("id", number))] = sample
    return found


def score(sample: Sample) -> float | None:
    """1 for a right answer, 0 for a wrong one, the share of several programs that passed; None without an answer.

    An edit counts as right if the greedy completion begins with the new answer's tokens (``begins``).
    """
    if prompts := sample.get("prompts"):
        new, _ = prompts[0]["new_old"]
        return float(new[2])
    if verdicts := sample.get("verdicts"):
        return sum(verdict == "passed" for verdict in verdicts) / len(verdicts)
    value = sample.get("acc", sample.get("exact_match"))
    return float(value) if isinstance(value, int | float) else None


def right(sample: Sample) -> bool | None:
    """Whether the answer counts as right: with several programs, whether at least half passed; None without one."""
    found = score(sample)
    return None if found is None else found >= 0.5


def passed(sample: Sample) -> str:
    """How many of several programs passed, as text; empty for other answers."""
    verdicts = sample.get("verdicts", [])
    return f" ({sum(verdict == 'passed' for verdict in verdicts)} of {len(verdicts)} passed)" if verdicts else ""


@dataclass
class Flips:
    """The items of one benchmark by which of two records is right; ``other`` counts items that cannot be compared."""

    both: list[str] = field(default_factory=list)
    neither: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)  # right in the first record alone
    gained: list[str] = field(default_factory=list)  # right in the second alone
    other: int = 0


def flips(one: Mapping[str, Sample], two: Mapping[str, Sample]) -> Flips:
    """The items that both records answered, matched by id and content, in the order of the first."""
    found = Flips(other=len(one.keys() ^ two.keys()))
    kinds = {(True, True): found.both, (False, False): found.neither}
    kinds |= {(True, False): found.lost, (False, True): found.gained}
    for id in (id for id in one if id in two):
        left, now = right(one[id]), right(two[id])
        if left is None or now is None or one[id].get("doc_hash") != two[id].get("doc_hash"):
            found.other += 1
        else:
            kinds[left, now].append(id)
    return found


def telling(items: Items, before: Items | None, each: int) -> list[str]:
    """Ids of items worth showing: first those that changed since ``before``, then others; up to ``each`` per kind."""
    if before is not None:
        found = flips(before, items)
        kinds: Sequence[list[str]] = (found.gained, found.lost, found.both, found.neither)
    else:
        kinds = ([id for id in items if right(items[id])], [id for id in items if right(items[id]) is False])
    return [id for kind in kinds for id in kind[:each]]
