"""HiP-LoRA as a PEFT method: importing this package registers it.

PEFT keeps its methods in dictionaries keyed by the string in ``adapter_config.json``. They are not public,
hence the pinned PEFT version and the tests of every operation that PEFT offers.
"""

from __future__ import annotations

from peft.mapping import (
    PEFT_TYPE_TO_CONFIG_MAPPING,
    PEFT_TYPE_TO_PREFIX_MAPPING,
    PEFT_TYPE_TO_TUNER_MAPPING,
)

from hiplora.tuner.config import HipLoraConfig, HipPeftType
from hiplora.tuner.layer import HipLinear
from hiplora.tuner.model import HipLoraModel

PEFT_TYPE_TO_CONFIG_MAPPING[HipPeftType.HIPLORA] = HipLoraConfig  # type: ignore[index]
PEFT_TYPE_TO_TUNER_MAPPING[HipPeftType.HIPLORA] = HipLoraModel  # type: ignore[index]
PEFT_TYPE_TO_PREFIX_MAPPING[HipPeftType.HIPLORA] = HipLoraModel.prefix  # type: ignore[index]

__all__ = ["HipLinear", "HipLoraConfig", "HipLoraModel", "HipPeftType"]
