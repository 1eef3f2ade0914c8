"""What a run prints when it is done: its scores, what it forgot, what it reused."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hiplora.scheduler import Outcome


def describe(outcome: Outcome) -> str:
    """Text on one finished run."""
    record = outcome.record
    parts = [_scores(record["metrics"]) if "metrics" in record else "", _training(record.get("training"))]
    if record.get("metrics", {}).get("retain"):
        parts.append(_retain(record["metrics"]["retain"], record["labels"]["task"]))
    if outcome.reused:
        parts.append("Reused: " + "; ".join(outcome.reused) + ". force=true redoes the run.")
    parts.append(f"Record: {record['pipeline']} {record['id']}")
    return "\n".join(part for part in parts if part)


def _number(value: Any, pattern: str = ".3f") -> str:
    return "-" if value is None else format(value, pattern)


def _scores(metrics: Mapping[str, Any]) -> str:
    base, adapted = metrics["base"], metrics.get("adapted", {})
    lines = [f"{'benchmark':<12}{'metric':<12}{'base':>9}{'adapted':>9}"]
    for benchmark, scores in base.items():
        for name, value in scores.items():
            if name not in ("n", "tokens"):
                after = _number(adapted[benchmark][name]) if adapted else ""
                lines.append(f"{benchmark:<12}{name:<12}{_number(value):>9}{after:>9}")
    return "\n".join(lines)


def _retain(retain: Mapping[str, Any], task: str) -> str:
    return (
        f"Forgotten outside {task} (lower is better): Retain {_number(retain['retain_pp'], '+.2f')} pp, "
        f"NLL {_number(retain['retain_nll'], '+.3f')}, general text {_number(retain['retain_text'], '+.3f')} nats per token"
    )


def _training(training: Mapping[str, Any] | None) -> str:
    if not training:
        return ""
    return (
        f"Trained {training['steps']} steps, {training['tokens']} tokens ({training['epochs']:.2f} epochs), "
        f"{training['seconds']:.0f} s, {training['tokens_per_second']:.0f} tokens/s, "
        f"{training['deployed_parameters']:,} parameters, {training['adapter_bytes'] / 1e6:.1f} MB"
    )
