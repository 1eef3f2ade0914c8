"""No confinement, only for users who ask for it by name; the record says so."""

from __future__ import annotations

import sys
from dataclasses import dataclass

from hiplora.evaluation.sandbox import interpreter
from hiplora.evaluation.sandbox.backend import Backend


@dataclass(frozen=True, kw_only=True)
class Unsafe(Backend):
    """Two plain processes with resource limits and a clock; the candidate can do what its user can do."""

    def command(self, settings_fd: int, info_fd: int | None) -> list[str]:
        return interpreter.command(str(interpreter.GUEST.parent), settings_fd)

    def limits(self, timeout: float) -> dict[str, int]:
        limits = super().limits(timeout)
        if sys.platform == "darwin":
            # macOS has no limit on the address space.
            del limits["AS"]
        return limits


def unsafe() -> Backend:
    return Unsafe(name="unsafe")
