"""Resolve a run: reuse the records there are, make those that are missing, in the order they need each other."""

from __future__ import annotations

import ctypes
import gc
import sys
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from hiplora import disk, records, tracking
from hiplora.config import RunConfig, digest
from hiplora.environment import environment
from hiplora.pipelines import pipeline


@dataclass
class Outcome:
    """The record of a run, and which records were found (``reused``) or made (``made``) on the way to it."""

    record: dict[str, Any]
    reused: list[str] = field(default_factory=list)
    made: list[str] = field(default_factory=list)


def record_id(config: RunConfig) -> str:
    """Identity of the record that this configuration leads to; loads no model."""
    return digest(pipeline(config.pipeline).identity(config))


def resolve(config: RunConfig) -> Outcome:
    """The record of a configuration, from disk where it exists, else computed with everything it requires.

    Raises:
        UserError: the configuration or the machine does not allow the run; nothing complete is lost.
    """
    identity = record_id(config)
    outcome = _stored(config, identity)
    if outcome is None:
        kind = pipeline(config.pipeline)
        kind.check(config)
        tracking.check(config)
        disk.check_writable(kind.directory(config, identity))
        with disk.lock(records.lock_path(config.outputs_dir, identity)):
            # Another process may have made it meanwhile.
            outcome = _stored(config, identity, tell=True) or _make(config, identity)
    _complete(config)
    return outcome


def _stored(config: RunConfig, identity: str, *, tell: bool = False) -> Outcome | None:
    """The record that is there, if it still stands for the run; ``tell`` says why where it does not."""
    kind = pipeline(config.pipeline)
    found = None if config.force else records.find_record(kind.directory(config, identity), identity)
    if found is None:
        return None
    name = records.stem(kind.labels(config), identity)
    reason = kind.stale(config, found)
    if reason is None:
        return Outcome(found, reused=[f"{config.pipeline} {name}"])
    if tell:
        print(f"[{config.pipeline}] {name} is made again: {reason}", file=sys.stderr, flush=True)
    return None


def _complete(config: RunConfig) -> None:
    """Add what was asked for to adapters that were made without it, this run's and those it stands on."""
    if config.save_basis:
        kind = pipeline(config.pipeline)
        kind.complete(config, record_id(config))
        for need in kind.requires(config):
            _complete(need)


def _make(config: RunConfig, identity: str) -> Outcome:
    kind = pipeline(config.pipeline)
    outcomes = [resolve(need) for need in kind.requires(config)]
    name = records.stem(kind.labels(config), identity)
    print(f"[{config.pipeline}] {name}", file=sys.stderr, flush=True)
    started = datetime.now(UTC).isoformat(timespec="seconds")
    _return_memory()
    result = kind.run(config, [outcome.record for outcome in outcomes], identity)
    fields = dict(result.fields)
    record = {
        "id": identity,
        "pipeline": config.pipeline,
        "labels": kind.labels(config),
        "config": config.resolved(),
        "identity": kind.identity(config),
        "environment": environment(fields.pop("device")),
        "started": started,
        **fields,
    }
    path = records.write_record(kind.directory(config, identity), record, result.samples)
    kind.clean(config, identity)
    tracking.publish(config, record)
    return Outcome(
        disk.read_json(path),
        reused=[line for outcome in outcomes for line in outcome.reused],
        made=[*(line for outcome in outcomes for line in outcome.made), f"{config.pipeline} {name}"],
    )


def _return_memory() -> None:
    """Give freed memory back before the next stage: glibc and torch keep it, and the stages' peaks would add up."""
    gc.collect()
    torch = sys.modules.get("torch")  # not loaded for this: a stage that computed something has loaded it
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.empty_cache()  # torch keeps freed blocks too, in the sizes that the last stage asked for
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc has it, musl has not
        if trim is not None:
            trim(0)
