"""Negative log-likelihood of the gold answer, which is reported beside every accuracy, on the same items."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def process_results(document: Mapping[str, Any], results: Sequence[Any]) -> dict[str, float]:
    """Nats per token of the right answer to one item, for lm-eval; the benchmark's NLL is the mean over items."""
    (result,) = results
    return {"nll": -result.log_prob / result.tokens}
