"""Every field of a record under a dotted name: settings, results, where and when it was made."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from hiplora.errors import UserError
from hiplora.report.drift import ends
from hiplora.report.scores import NORMAL_95
from hiplora.stages.record import Record
from hiplora.stages.results import Adapter, Drifted, Scores

Value = str | int | float | bool | None
Fields = dict[str, Value]
INSIDE = {"of", "train", "adapters", "parent"}  # nesting in a stage, left out of a field's name
HEAD = ("kind", "id", "where", "name", "started", "digest")


def fields(record: Record, marks: str) -> Fields:
    """All fields by which records can be listed, filtered and compared; ``marks`` are those of tables."""
    results = {f"result.{name}": value for name, value in numbers(record).items()}
    return {**about(record), "marks": marks, **asked(record), **results}


def about(record: Record) -> Fields:
    """What a record is, and where and when it was made."""
    raw = record.environment
    head: Fields = {name: getattr(record, name) for name in HEAD}
    made = {"commit": raw.get("git_commit"), "dirty": raw.get("git_dirty")}
    return head | made | {"device": raw.get("device"), "platform": raw.get("platform")}


def asked(record: Record) -> Fields:
    """The settings of a record, under the names of the command line: ``training.lr``, ``method``."""
    return flat({key: value for key, value in record.asked.items() if key != "kind"})


def split(record: Record) -> str:
    """The split that was scored, test or validation, however the stage's identity names it."""
    evaluation = record.asked.get("evaluation", {})
    named = evaluation.get("splits", "test") if isinstance(evaluation, Mapping) else evaluation
    return str(named if isinstance(named, str) else named[0])


def numbers(record: Record) -> Fields:
    """The results of a record: plain values such as ``gsm8k.acc``, and the lengths of lists of objects."""
    raw = record.result.model_dump()
    if isinstance(record.result, Scores):
        del raw["texts"]  # the name of a file
        raw |= raw.pop("benchmarks") | {f"lm_eval.{name}": _shown_of(task) for name, task in raw.pop("lm_eval").items()}
    if isinstance(record.result, Adapter):
        raw |= raw.pop("measures")
    if isinstance(record.result, Drifted):
        raw |= {**raw.pop("measures"), **ends(record.result)}
        del raw["points"]  # of the matrices one by one
    counted = {key: len(value) if _many(value) else value for key, value in raw.items()}
    return flat(counted)


def _shown_of(task: Mapping[str, Any]) -> dict[str, Any]:
    """The scores of an lm-eval task with half the width of a 95 % interval, and its n, shots, version and group."""
    halves = {f"{metric} ±": NORMAL_95 * error for metric, error in task["stderr"].items()}
    return {**task["metrics"], **halves, **{key: task[key] for key in ("n", "shots", "version", "group")}}


def flat(tree: Mapping[str, Any]) -> Fields:
    """The leaves of a tree of settings by dotted name.

    Objects with a name are listed under it: ``method`` is the method's name, ``benchmarks.gsm8k.scoring`` a benchmark's
    option. If several adapters have the same field, its different values are joined by commas.
    """
    found: dict[str, list[Value]] = {}
    for name, value in _leaves(tree, ""):
        values = found.setdefault(name, [])
        if value not in values:
            values.append(value)
    return {name: v[0] if len(v) == 1 else ",".join(map(shown, v)) for name, v in found.items()}


def _leaves(value: Any, name: str) -> Iterator[tuple[str, Value]]:
    if isinstance(value, Mapping):
        for key, inner in sorted(value.items(), key=lambda item: item[0] != "parent"):  # tasks in the order of training
            yield from _field(key, inner, name)
    elif _many(value):
        for number, item in enumerate(value):
            own = item.get("name") if isinstance(item, Mapping) and name else None
            # Without a prefix, the field `kind` is the record's: an adapter's own kind must not be added to it.
            left_out = "name" if own else ("kind" if not name else None)
            plain = {key: inner for key, inner in item.items() if key != left_out} if left_out else item
            yield from _leaves(plain, f"{name}.{own or number}" if name else "")
    elif isinstance(value, list | tuple):
        yield name, ",".join(map(shown, value))
    else:
        yield name, value


def _field(key: str, inner: Any, name: str) -> Iterator[tuple[str, Value]]:
    if key in INSIDE and (isinstance(inner, Mapping) or _many(inner)):
        kind = inner.get("kind") if isinstance(inner, Mapping) else None
        yield from [(key, kind)] if key == "of" and kind else []
        yield from _leaves({k: v for k, v in inner.items() if k != "kind"} if isinstance(inner, Mapping) else inner, "")
    else:
        yield from _leaves(inner, name if key == "name" and name else f"{name}.{key}" if name else key)


def _many(value: Any) -> bool:
    return isinstance(value, list | tuple) and any(isinstance(item, Mapping) for item in value)


def shown(value: Any) -> str:
    """A value as text on one line, as it is typed: ``null``, ``true``, numbers with six significant digits."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return f"{value:.6g}" if isinstance(value, float) else str(value).replace("\n", "\\n")


def compared(one: Fields, two: Fields) -> dict[str, list[Value]]:
    """The fields that differ, as pairs of values; None for a missing one."""
    return {k: [one.get(k), two.get(k)] for k in dict.fromkeys([*one, *two]) if one.get(k) != two.get(k)}


def resolve(name: str, known: Iterable[str]) -> str:
    """The full name of a field from its last parts, such as ``training.lr`` from ``lr``.

    Raises:
        UserError: no record has such a field, or several fields match.
    """
    known = dict.fromkeys(known)
    if name in known:
        return name
    ending = [each for each in known if each.endswith(f".{name}")]
    if len(ending) == 1:
        return ending[0]
    if ending:
        raise UserError(f"{name} can be {', '.join(ending[:6])}; type one of them.")
    close = [each for each in known if name in each][:6] or [*known][:6]
    raise UserError(f"No record has a field {name}; there are {', '.join(close)} and more (--json prints all).")
