"""What a run prints when it is done: its scores, what it forgot, what it reused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from hiplora.tasks import primary

if TYPE_CHECKING:
    from hiplora.scheduler import Outcome


def describe(outcome: Outcome) -> str:
    """Text on one finished run."""
    record = outcome.record
    metrics = record.get("metrics", {})
    parts = [_scores(metrics) if "base" in metrics else "", _training(record.get("training"))]
    if "retain" in metrics:
        parts.append(_retain(metrics["retain"], record["labels"]["task"]))
    if "instances" in metrics:
        parts.append(_merges(metrics["instances"]))
    if outcome.reused:
        parts.append("Reused: " + "; ".join(outcome.reused) + ". force=true redoes the run.")
    parts.append(f"Record: {record['pipeline']} {record['id']}")
    return "\n".join(part for part in parts if part)


def _merges(instances: Sequence[Mapping[str, Any]]) -> str:
    lines = [f"{'merged adapters':<58}{'benchmark':<12}{'before':>9}{'after':>9}"]
    for instance in instances:
        who = " + ".join(f"{task}/{seed}" for task, seed in instance["adapters"].items())
        for task in instance["adapters"]:
            name = primary(task)
            before, after = (_number(instance[when][task][name]) for when in ("before", "after"))
            lines.append(f"{who:<58}{task:<12}{before:>9}{after:>9}")
            who = ""
    return "\n".join(lines)


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
        f"NLL {_number(retain['retain_nll'], '+.3f')}, "
        f"general text {_number(retain['retain_text'], '+.3f')} nats per token"
    )


def _training(training: Mapping[str, Any] | None) -> str:
    if not training:
        return ""
    return (
        f"Trained {training['steps']} steps, {training['tokens']} tokens ({training['epochs']:.2f} epochs), "
        f"{training['seconds']:.0f} s, {training['tokens_per_second']:.0f} tokens/s, "
        f"{training['deployed_parameters']:,} parameters, {training['adapter_bytes'] / 1e6:.1f} MB"
    )
