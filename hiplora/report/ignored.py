"""Records that carry a wanted run's labels and are not it: counted and explained, never averaged in."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from hiplora.report.evidence import Record

# Fields of a configuration that never tell two results apart.
BOOKKEEPING = {"force", "logging", "save_basis", "outputs_dir", "results_dir", "pipeline"}
# Values that mean the same: most benchmarks have no other form than Alpaca's.
SAME = {"task.template": {None, "alpaca"}}


def ignored_notes(wanted: Sequence[tuple[str, Mapping[str, Any]]], records: Sequence[Record]) -> list[str]:
    """One sentence on the records that agree with a wanted run in its labels and differ in anything else.

    ``wanted`` holds the identity and the resolved configuration of each run.
    """
    identities = {identity for identity, _ in wanted}
    reasons: Counter[str] = Counter()
    for record in records:
        if record["id"] in identities:
            continue
        alike = [config for _, config in wanted if labels(config) == labels(record["config"])]
        if alike:
            reasons[min((difference(record["config"], config) for config in alike), key=len)] += 1
    if not reasons:
        return []
    words = "; ".join(f"{reason} ({count})" for reason, count in reasons.most_common())
    return [
        f"{sum(reasons.values())} other record(s) of the same methods, tasks and seeds are left out, as they were "
        f"made under other settings: {words}."
    ]


def labels(config: Mapping[str, Any]) -> tuple[Any, ...]:
    """What a record is looked up by; not enough to identify it."""
    names = [config[section]["name"] for section in ("method", "task", "model", "data")]
    # Only some pipelines merge; where they do, the operator is a label too.
    merge = config.get("merge") or {}
    operator = (merge.get("name"), merge.get("calibration"))
    return (config["pipeline"], *names, config["seed"], config["scale"], *operator)


def difference(theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> str:
    """The settings in which a record differs, as ``training.steps=20, not 60``."""
    left, right = dict(flat(theirs)), dict(flat(ours))
    keys = [key for key in {**left, **right} if key.split(".")[0] not in BOOKKEEPING]
    apart = [key for key in keys if left.get(key) != right.get(key) and not _alike(key, left.get(key), right.get(key))]
    if not apart:
        return "same settings, but another backbone file, other data or an earlier version of the code"
    shown = [f"{key}={left.get(key)}, not {right.get(key)}" for key in apart[:3]]
    return " and ".join([*shown, *([f"{len(apart) - 3} more"] if len(apart) > 3 else [])])


def _alike(key: str, one: Any, other: Any) -> bool:
    return key in SAME and {one, other} <= SAME[key]


def flat(config: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """Every field of a configuration by its full name, such as ``training.steps``."""
    pairs: list[tuple[str, Any]] = []
    for key, value in config.items():
        name = f"{prefix}{key}"
        pairs += flat(value, f"{name}.") if isinstance(value, Mapping) else [(name, value)]
    return pairs
