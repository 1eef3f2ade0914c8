"""Adapters are checked once, before anything is computed, and brought to float32."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch

from hiplora.errors import UserError
from hiplora.updates import Dense, LowRank, Principal, Update

if TYPE_CHECKING:
    from hiplora.merging.base import Operator


def checked(
    operator: Operator,
    updates: Sequence[Mapping[str, Update]],
    generator: torch.Generator | None,
    labels: Sequence[str] | None,
) -> list[dict[str, Update]]:
    """The adapters in float32 and one order of names.

    Raises:
        UserError: nothing to merge, unlike names or shapes, values that are not finite, a full-rank update
            where the operator needs factors, or a missing generator.
    """
    if not updates or not updates[0]:
        raise UserError("There is nothing to merge: give at least one adapter with at least one adapted matrix.")
    labels = labels or [f"adapter {i + 1}" for i in range(len(updates))]
    _need_generator(operator, generator)
    names = list(updates[0])
    for label, adapter in zip(labels, updates, strict=True):
        _same_modules(label, adapter, labels[0], updates[0])
        for name in names:
            _usable(operator, label, name, adapter[name])
    return [{name: adapter[name].to(torch.float32) for name in names} for adapter in updates]


def _need_generator(operator: Operator, generator: torch.Generator | None) -> None:
    if generator is None and (operator.draws or operator.calibration == "random"):
        what = f"merge={operator.name}" if operator.draws else "merge.calibration=random"
        raise UserError(f"{what} draws at random: give a seeded torch.Generator (on the command line, --seed 0).")


def _same_modules(label: str, adapter: Mapping[str, Update], first: str, reference: Mapping[str, Update]) -> None:
    odd = sorted(set(adapter) ^ set(reference))
    if odd:
        raise UserError(
            f"{label} and {first} adapt different modules ({odd[0]} is in only one of them, {len(odd)} such in all); "
            "give the update 0 (hiplora.updates.zero) where an adapter has none, if that is what is meant."
        )
    for name, update in adapter.items():
        if update.shape != reference[name].shape:
            raise UserError(
                f"{name} is {update.shape} in {label} and {reference[name].shape} in {first}; "
                "merge adapters of one backbone."
            )


def _usable(operator: Operator, label: str, name: str, update: Update) -> None:
    if isinstance(update, Dense) and not operator.accepts_dense:
        raise UserError(
            f"merge={operator.name} works on low-rank factors, but {label} has a full-rank update ({name}); "
            "choose a dense operator: addition, task_arithmetic, ties, dare or della."
        )
    if not all(map(_finite, parts(update))):
        raise UserError(f"{label} holds values that are not finite in {name}; its training diverged, leave it out.")


def _finite(x: torch.Tensor) -> bool:
    # Extremes carry NaN and infinity along and need no mask of the tensor's size.
    return x.numel() == 0 or bool(torch.isfinite(torch.stack(x.aminmax())).all())


def parts(update: Update) -> list[torch.Tensor]:
    """The tensors an update is made of."""
    if isinstance(update, Dense):
        return [update.weight]
    if isinstance(update, LowRank):
        return [update.B, update.A]
    assert isinstance(update, Principal)
    return [update.U, update.phi, update.V, *(parts(update.residual) if update.residual else [])]
