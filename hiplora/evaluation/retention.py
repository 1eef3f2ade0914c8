"""What an adapter forgot: the cost, on everything it was not trained on, of having been trained."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hiplora.tasks import ORDER, primary


def retention(base: Mapping[str, Any], adapted: Mapping[str, Any], *, trained_on: str) -> dict[str, float | None]:
    """Retain, Retain-NLL and Retain-text of one adapter; lower is better, negative means improved.

    Args:
        base, adapted: metrics by benchmark; accuracies as fractions, ``nll`` in nats per token.
        trained_on: the benchmark that is left out of the means, where it is one of the four.

    Returns:
        ``retain_pp``: mean over the other benchmarks of 100 (score_base - score_adapted), in percentage points; None
        where one of them has no score (code that was not executed). ``retain_nll``: mean over the same benchmarks of
        the rise of the gold answer's negative log-likelihood. ``retain_text``: rise of the cross-entropy on text.
    """
    others = [task for task in ORDER if task != trained_on]
    scores = [(base[task][primary(task)], adapted[task][primary(task)]) for task in others]
    known = all(before is not None and after is not None for before, after in scores)
    rises = [adapted[task]["nll"] - base[task]["nll"] for task in others]
    return {
        "retain_pp": sum(100 * (before - after) for before, after in scores) / len(others) if known else None,
        "retain_nll": sum(rises) / len(others),
        "retain_text": adapted["text"]["nll"] - base["text"]["nll"],
    }
