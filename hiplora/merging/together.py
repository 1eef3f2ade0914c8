"""Brings adapter folders together for a merge: the union of their modules, and their other trained tensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from hiplora.errors import UserError

if TYPE_CHECKING:
    from hiplora.adapters.reading import Adapter
    from hiplora.adapters.trained import Trained
    from hiplora.updates import Update


def complete(adapters: Sequence[Adapter]) -> tuple[list[dict[str, Update]], dict[str, list[str]]]:
    """The adapters' updates on the union of their modules and, by label, the modules that an adapter lacks.

    In every operator, an adapter that does not adapt a module has the update 0 there.

    Raises:
        UserError: the adapters have no adapted module in common, so that they do not belong together.
    """
    from hiplora.updates import zero

    every = {name: update.shape for adapter in adapters for name, update in adapter.updates.items()}
    if not set.intersection(*(set(adapter.updates) for adapter in adapters)):
        raise UserError("These adapters have no adapted module in common; merge adapters of one backbone.")
    lacking = {a.label: sorted(set(every) - set(a.updates)) for a in adapters}
    filled = [{name: a.updates.get(name) or zero(shape) for name, shape in sorted(every.items())} for a in adapters]
    return filled, {label: names for label, names in lacking.items() if names}


def trained_together(adapters: Sequence[Adapter]) -> tuple[Trained, list[str]]:
    """The merged tensors that adapters trained besides their updates, and sentences on their origin.

    Raises:
        UserError: these tensors cannot be merged.
    """
    from hiplora.adapters.trained import check_apart, merge_trained

    check_apart([(a.label, a.updates, a.trained) for a in adapters])
    trained, sources = merge_trained([a.label for a in adapters], [a.trained for a in adapters])
    alike: dict[tuple[str, ...], list[str]] = {}
    for name, labels in sources.items():
        alike.setdefault(tuple(labels), []).append(name)
    return trained, [_origin(names, labels) for labels, names in alike.items()]


def _origin(names: Sequence[str], labels: Sequence[str]) -> str:
    """A sentence that says of which adapters some modules are; of many modules it names the first."""
    whose, mean = ", ".join(labels), len(labels) > 1
    if len(names) == 1:
        return f"{names[0]} is {'the mean of those' if mean else 'that'} of {whose}."
    which = f"{names[0]} and {len(names) - 1} more trained modules"
    return f"{which} are {'the means of those' if mean else 'those'} of {whose}."
