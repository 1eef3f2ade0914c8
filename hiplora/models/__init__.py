"""The frozen backbone: its options, its files, and the loaded model. Importing the package does not load torch."""

from __future__ import annotations

from hiplora.models.files import (
    based_on,
    begins,
    called,
    check,
    checkpoint,
    identity,
    location,
    matrices,
    positions,
    weights,
)
from hiplora.models.loading import Backbone, describe, forget, load
from hiplora.models.options import ALL_LINEAR, AUTO, Model, arithmetic, device_of, device_type

__all__ = [
    "ALL_LINEAR",
    "AUTO",
    "Backbone",
    "Model",
    "arithmetic",
    "based_on",
    "begins",
    "called",
    "check",
    "checkpoint",
    "describe",
    "device_of",
    "device_type",
    "forget",
    "identity",
    "load",
    "location",
    "matrices",
    "positions",
    "weights",
]
