"""What makes PEFT know the method: nothing on import, one call, or the first configuration that is constructed.

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
    """Make HiP-LoRA known to PEFT, in this process; to call it again changes nothing.

    Constructing a HipLoraConfig does it too. Only to load an adapter in a process that constructs none, as
    ``PeftModel.from_pretrained`` and the ``AutoPeftModel`` classes do, must it be called first.
    """
    PEFT_TYPE_TO_CONFIG_MAPPING[HipPeftType.HIPLORA] = HipLoraConfig  # type: ignore[index]
    PEFT_TYPE_TO_TUNER_MAPPING[HipPeftType.HIPLORA] = HipLoraModel  # type: ignore[index]
    PEFT_TYPE_TO_PREFIX_MAPPING[HipPeftType.HIPLORA] = HipLoraModel.prefix  # type: ignore[index]


# The model needs the options and registration needs the model: so the options stand in a class of their own.
@dataclass
class HipLoraConfig(HipConfig):
    __doc__ = HipConfig.__doc__

    def __post_init__(self) -> None:
        register()
        super().__post_init__()
        # A stock LoraModel that is given this then makes our layers, which refuse what its own would compute wrongly.
        self._register_custom_module({nn.Linear: HipLinear, Conv1D: HipLinear})

    @classmethod
    def from_pretrained(cls, *args: Any, **kwargs: Any) -> HipLoraConfig:
        """PEFT's ``from_pretrained``, which also remembers where the adapter lies."""
        register()
        return cast(HipLoraConfig, super().from_pretrained(*args, **kwargs))
