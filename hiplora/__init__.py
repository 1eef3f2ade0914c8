"""HiP-LoRA: budgeted spectral plasticity for low-rank adaptation.

Importing the package loads neither torch nor PEFT, so that reports, plans and ``--help`` answer at once. Importing
its exports changes nothing global: HiP-LoRA is registered with PEFT when a HipLoraConfig is constructed or
``hiplora.register()`` is called.
"""

from __future__ import annotations

from hiplora.lazy import lazily

_EXPORTS = {
    "HipLoraCallback": "hiplora.tuner.callback",
    "HipLoraConfig": "hiplora.tuner.registration",
    "HipLoraModel": "hiplora.tuner.model",
    "UserError": "hiplora.errors",
    "export_lora": "hiplora.adapters.exporting",
    "register": "hiplora.tuner.registration",
}
__all__ = [*_EXPORTS]
__getattr__ = lazily(__name__, _EXPORTS)
__version__ = "0.1.0"
