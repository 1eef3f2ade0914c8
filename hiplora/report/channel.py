"""Whether an adapter's principal channel moved at all; if not, the adapter is little more than its residual."""

from __future__ import annotations

from hiplora.methods import method_class
from hiplora.stages.energy import MOVES
from hiplora.stages.record import Record
from hiplora.stages.results import Adapter


def channel_stands_still(record: Record) -> bool:
    """Whether a training's method has a principal channel that holds less than ``MOVES`` of the update's energy.

    False for other records, and if the share was not recorded.
    """
    result = record.result
    if not isinstance(result, Adapter) or not method_class(record.asked["method"]["name"]).channel:
        return False
    share = result.measures.get("channel_share")
    return share is not None and share < MOVES
