"""HiP-LoRA: budgeted spectral plasticity for low-rank adaptation.

``from hiplora import HipLoraConfig`` registers the tuner with PEFT. Importing the package itself loads
neither torch nor PEFT, so that reports, plans and ``--help`` answer at once.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

_EXPORTS = {
    "HipLoraConfig": "hiplora.tuner",
    "HipLoraModel": "hiplora.tuner",
    "HipLoraCallback": "hiplora.training.callback",
    "export_lora": "hiplora.adapters.exporting",
    "UserError": "hiplora.errors",
}
__all__ = [*_EXPORTS]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module 'hiplora' has no attribute {name!r}")
    return getattr(import_module(_EXPORTS[name]), name)
