"""Merging adapters: operators on updates, and calibrations that run before them.

``merge(updates, "ties", density=0.2)`` takes one mapping ``{module name: Update}`` per adapter, of any
method and rank, and returns the merged mapping. ``python -m hiplora.merging`` does the same on adapter folders.
Importing this package loads neither torch nor PEFT.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

from hiplora.errors import UserError
from hiplora.merging.base import CALIBRATIONS, Operator, Plan, on_command_line, typed, typed_as

if TYPE_CHECKING:
    import torch

    from hiplora.updates import Update

__all__ = ["CALIBRATIONS", "OPERATORS", "MergeResult", "Streamed", "apply", "configured", "merge", "operator_class"]

OPERATORS: dict[str, str] = {
    "addition": "hiplora.merging.addition:Addition",
    "task_arithmetic": "hiplora.merging.task_arithmetic:TaskArithmetic",
    "ties": "hiplora.merging.ties:Ties",
    "dare": "hiplora.merging.dare:Dare",
    "della": "hiplora.merging.della:Della",
    "tsvm": "hiplora.merging.tsvm:Tsvm",
    "knots": "hiplora.merging.knots:Knots",
    "core_space": "hiplora.merging.core_space:CoreSpace",
}


@dataclass(frozen=True)
class MergeResult:
    """The merged updates and a report on them.

    ``updates`` maps every module name to its merged update. Operators that work on factors fill a dict;
    the dense ones return a :class:`Streamed` mapping, which computes a matrix on access and keeps none.
    ``report`` is JSON-serialisable. It gets ``zero: true`` after the last matrix was computed, if all are 0.
    """

    updates: Mapping[str, Update]
    report: dict[str, Any]


class Streamed(Mapping[str, "Update"]):
    """Merged updates, computed on every access and never stored: ask for each once, in any order."""

    def __init__(self, plan: Plan, names: Sequence[str]) -> None:
        self._plan = plan
        self._names = tuple(names)

    def __getitem__(self, name: str) -> Update:
        if name not in self._names:
            raise KeyError(name)
        return self._plan.matrix(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def operator_class(name: str) -> type[Operator]:
    """The operator class of a name in OPERATORS; its fields are its options.

    Raises:
        UserError: no operator has this name.
    """
    if name not in OPERATORS:
        raise UserError(f"{typed('operator', name)} is not known; choose one of {', '.join(OPERATORS)}.")
    module, _, attribute = OPERATORS[name].partition(":")
    return getattr(import_module(module), attribute)


def configured(name: str, *, calibration: str = "none", **options: Any) -> Operator:
    """An operator with checked options.

    Raises:
        UserError: the name is unknown, or the operator lacks an option, or a value is out of range.
    """
    cls = operator_class(name)
    known = sorted(set(cls.model_fields) - {"name", "calibration"})
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise UserError(
            f"{typed('operator', name)} has no option {', '.join(map(spelt, unknown))}; "
            + (f"it has {', '.join(map(spelt, known))}." if known else "it has none.")
        )
    given: dict[str, Any] = {"name": name, "calibration": calibration, **options}
    return cls(**given)


def spelt(option: str) -> str:
    """An option's plain name in Python, ``--name`` on the command line."""
    return typed_as(option) if on_command_line() else option


def merge(
    updates: Sequence[Mapping[str, Update]],
    operator: str,
    *,
    calibration: str = "none",
    generator: torch.Generator | None = None,
    labels: Sequence[str] | None = None,
    **options: Any,
) -> MergeResult:
    """Merge adapters given as mappings from module name to ΔW.

    Args:
        updates: one mapping per adapter, all with the same names and shapes.
        operator: a key of OPERATORS.
        calibration: none | pico | rescale | random, applied before the operator.
        generator: required by whatever draws at random: dare, della, calibration=random.
        labels: names of the adapters in messages; default "adapter 1", "adapter 2", …
        **options: fields of the operator's class, e.g. ``density=0.2``.

    Raises:
        UserError: unknown names or options, adapters that do not match, a full-rank update given to an
            operator that works on factors, or a missing generator. A merged update that is not finite raises it
            when it is computed.
    """
    instance = configured(operator, calibration=calibration, **options)
    return apply(instance, updates, generator=generator, labels=labels)


def apply(
    operator: Operator,
    updates: Sequence[Mapping[str, Update]],
    *,
    generator: torch.Generator | None = None,
    labels: Sequence[str] | None = None,
) -> MergeResult:
    """:func:`merge` with the operator and its options as one object."""
    from hiplora.merging.calibration import calibrate
    from hiplora.merging.checks import checked, watched

    tasks = checked(operator, updates, generator, labels)
    calibrated = calibrate(operator.calibration, tasks, generator)
    plan = operator.plan(calibrated.tasks, generator).then(calibrated.finish)
    report = {
        **operator.resolved(),
        "adapters": len(tasks),
        "matrices": len(tasks[0]),
        **calibrated.notes,
        **plan.notes,
    }
    names = list(tasks[0])
    plan = plan.then(watched(names, report))
    merged = Streamed(plan, names)
    return MergeResult(dict(merged) if plan.factored else merged, report)
