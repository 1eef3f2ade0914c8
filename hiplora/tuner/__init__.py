"""HiP-LoRA as a PEFT method.

Importing the package loads neither torch nor PEFT. Importing one of its names loads both and registers nothing:
:func:`register` registers the method with PEFT, and so does constructing a HipLoraConfig.
"""

from __future__ import annotations

from hiplora.lazy import lazily

_EXPORTS = {
    "HipLinear": "hiplora.tuner.layer",
    "HipLoraCallback": "hiplora.tuner.callback",
    "HipLoraConfig": "hiplora.tuner.registration",
    "HipLoraModel": "hiplora.tuner.model",
    "HipPeftType": "hiplora.tuner.config",
    "register": "hiplora.tuner.registration",
}
__all__ = [*_EXPORTS]
__getattr__ = lazily(__name__, _EXPORTS)
