"""Registers HiP-LoRA with PEFT: on a call of ``register`` or on constructing a configuration, never on import.

PEFT keeps its methods in dictionaries keyed by the string in ``adapter_config.json``. They are not public,
hence ``hiplora.tuner.hooks`` and the tests of every operation that PEFT offers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

from torch import nn
from transformers.pytorch_utils import Conv1D

from hiplora.tuner.config import HipConfig, HipPeftType
from hiplora.tuner.hooks import (
    PEFT_TYPE_TO_CONFIG_MAPPING,
    PEFT_TYPE_TO_PREFIX_MAPPING,
    PEFT_TYPE_TO_TUNER_MAPPING,
)
from hiplora.tuner.layer import HipLinear
from hiplora.tuner.model import HipLoraModel


def register() -> None:
    """Register HiP-LoRA with PEFT in this process; a second call changes nothing.

    Constructing a HipLoraConfig registers it too. Call this before ``PeftModel.from_pretrained`` or an
    ``AutoPeftModel`` class loads an adapter in a process that has constructed none.
    """
    PEFT_TYPE_TO_CONFIG_MAPPING[HipPeftType.HIPLORA] = HipLoraConfig  # type: ignore[index]
    PEFT_TYPE_TO_TUNER_MAPPING[HipPeftType.HIPLORA] = HipLoraModel  # type: ignore[index]
    PEFT_TYPE_TO_PREFIX_MAPPING[HipPeftType.HIPLORA] = HipLoraModel.prefix  # type: ignore[index]


# The model imports the options and registration imports the model, so the options are in a base class of their own.
@dataclass
class HipLoraConfig(HipConfig):
    __doc__ = HipConfig.__doc__

    def __post_init__(self) -> None:
        register()
        super().__post_init__()
        # A stock LoraModel given this configuration then makes our layers, which refuse to run without a basis; its
        # own layers would ignore φ.
        self._register_custom_module({nn.Linear: HipLinear, Conv1D: HipLinear})

    @classmethod
    def from_pretrained(cls, *args: Any, **kwargs: Any) -> HipLoraConfig:
        """PEFT's ``from_pretrained``, which also stores where the adapter was found."""
        register()
        return cast(HipLoraConfig, super().from_pretrained(*args, **kwargs))
