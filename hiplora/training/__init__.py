"""Fine-tuning: packed rows, loss at label positions, one Trainer subclass, exact resume."""

from __future__ import annotations

from hiplora.training.trainer import NonFiniteLossError, TrainResult, train

__all__ = ["NonFiniteLossError", "TrainResult", "train"]
