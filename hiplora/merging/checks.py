"""The checks of adapters before a merge and of every merged update after it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch

from hiplora.errors import UserError
from hiplora.merging.base import typed
from hiplora.updates import Dense, LowRank, Principal, Update

if TYPE_CHECKING:
    from hiplora.merging.base import Operator


def checked(
    operator: Operator,
    updates: Sequence[Mapping[str, Update]],
    generator: torch.Generator | None,
    labels: Sequence[str] | None,
) -> list[dict[str, Update]]:
    """The adapters in float32, all with the same order of names.

    Raises:
        UserError: nothing to merge, different names or shapes, a wrong number of weights, values that are not finite,
            a full-rank update where the operator needs factors, or a missing generator.
    """
    if not updates or not updates[0]:
        raise UserError("There is nothing to merge: give at least one adapter with at least one adapted matrix.")
    labels = labels or [f"adapter {i + 1}" for i in range(len(updates))]
    operator.check_adapters(len(updates))
    _need_generator(operator, generator)
    names = list(updates[0])
    for label, adapter in zip(labels, updates, strict=True):
        _same_modules(label, adapter, labels[0], updates[0])
        for name in names:
            _usable(operator, label, name, adapter[name])
    return [{name: adapter[name].to(torch.float32) for name in names} for adapter in updates]


def _need_generator(operator: Operator, generator: torch.Generator | None) -> None:
    if generator is None and operator.random:
        raise UserError(f"{operator.what_draws()} draws at random; give a seeded torch.Generator.")


def _same_modules(label: str, adapter: Mapping[str, Update], first: str, reference: Mapping[str, Update]) -> None:
    odd = sorted(set(adapter) ^ set(reference))
    if odd:
        raise UserError(
            f"{label} and {first} adapt different modules ({odd[0]} is in only one of them, {len(odd)} such in all); "
            "if these adapters belong together, give hiplora.updates.zero where one has no update."
        )
    for name, update in adapter.items():
        if update.shape != reference[name].shape:
            raise UserError(
                f"{name} is {update.shape} in {label} and {reference[name].shape} in {first}; "
                "merge adapters of one backbone."
            )


def refuse_dense(operator: Operator, label: str, name: str, update: Update) -> None:
    """Refuse a full-rank update where the operator needs factors. Raises UserError."""
    if isinstance(update, Dense) and not operator.accepts_dense:
        raise UserError(
            f"{typed('operator', operator.name)} works on low-rank factors, but {label} has a full-rank update "
            f"({name}); choose a dense operator: addition, task_arithmetic, ties, dare or della."
        )


def _usable(operator: Operator, label: str, name: str, update: Update) -> None:
    refuse_dense(operator, label, name, update)
    if not all(map(_finite, parts(update))):
        raise UserError(f"{label} holds values that are not finite in {name}; its training diverged, leave it out.")


def watched(names: Sequence[str], report: dict[str, Any]) -> Callable[[str, Update], Update]:
    """A function for :meth:`Plan.then` that checks every merged update and returns it unchanged.

    It raises UserError for an update that is not finite, and writes ``zero: true`` into the report once all names were
    seen and all updates are 0.
    """
    left, some = set(names), False

    def look(name: str, update: Update) -> Update:
        nonlocal some
        finite, zero = _judged(update)
        if not finite:
            raise UserError(
                f"The merged update of {name} is not finite: its numbers are too large for float32; lower the scale "
                "or the weights, or leave out an adapter with huge values."
            )
        left.discard(name)
        some = some or not zero
        if not left and not some:
            report["zero"] = True
        return update

    return look


def _judged(update: Update) -> tuple[bool, bool]:
    """Whether ΔW is finite, and whether it is 0 (the dense matrix, or one of its factors)."""
    if isinstance(update, Dense):
        ends = [float(end) for end in update.weight.aminmax()] if update.weight.numel() else [0.0]  # one pass for both
        return all(map(math.isfinite, ends)), not any(ends)
    factors = update.factors()
    bound = float(factors.B.norm()) * float(factors.A.norm())
    # The product is formed only if the norms do not prove it finite. A norm of 0 does not prove a factor 0, as squares
    # of tiny entries underflow: hence the extremes.
    finite = bound < torch.finfo(torch.float32).max or _finite(factors.dense())
    return finite, bound == 0 and 0 in (_extreme(factors.B), _extreme(factors.A))


def _extreme(x: torch.Tensor) -> float:
    return max(float(end.abs()) for end in x.aminmax()) if x.numel() else 0.0


def _finite(x: torch.Tensor) -> bool:
    # The extremes are NaN or infinite if any entry is, and need no mask of the tensor's size.
    return x.numel() == 0 or bool(torch.isfinite(torch.stack(x.aminmax())).all())


def parts(update: Update) -> list[torch.Tensor]:
    """The tensors that an update consists of."""
    if isinstance(update, Dense):
        return [update.weight]
    if isinstance(update, LowRank):
        return [update.B, update.A]
    assert isinstance(update, Principal)
    return [update.U, update.phi, update.V, *(parts(update.residual) if update.residual else [])]
