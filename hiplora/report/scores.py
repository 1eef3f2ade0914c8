"""Scores as text: models side by side, and what one of them forgot."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hiplora.evaluation.retention import retention
from hiplora.stages.results import Metrics


def number(value: Any, pattern: str = ".3f") -> str:
    """A number as it is printed; a dash where it was not measured."""
    return "-" if value is None else format(value, pattern)


def table(columns: Mapping[str, Mapping[str, Metrics]]) -> str:
    """Every score of several models, one column each; "" without a column."""
    if not columns:
        return ""
    lines = [f"{'benchmark':<14}{'metric':<12}" + "".join(f"{name:>9}" for name in columns)]
    for benchmark, scores in next(iter(columns.values())).items():
        for metric in scores:
            if metric not in ("n", "tokens"):
                numbers = [number(column.get(benchmark, {}).get(metric)) for column in columns.values()]
                lines.append(f"{benchmark:<14}{metric:<12}" + "".join(f"{each:>9}" for each in numbers))
    return "\n".join(lines)


def forgotten(base: Mapping[str, Metrics], adapted: Mapping[str, Metrics], *, trained_on: str | None) -> str:
    """Retain in its forms, in a sentence; where it was trained on none of the four, all count."""
    retain = retention(base, adapted, trained_on=trained_on)
    styled = retain["retain_styled"]
    beside = "" if styled is None else f" (word problems beside it {styled:+.3f})"
    return (
        f"Forgotten{f' outside {trained_on}' if trained_on else ''} (lower is better): "
        f"Retain {number(retain['retain_pp'], '+.2f')} pp, NLL {number(retain['retain_nll'], '+.3f')}{beside}, "
        f"general text {number(retain['retain_text'], '+.3f')} nats per token"
    )
