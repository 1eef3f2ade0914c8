"""A key-value cache for sequences that split and end during generation.

Each layer has one buffer (slots, heads, columns, head_dim), allocated once; on a CPU, pages take memory only once
touched. The live sequences are in the first slots and share the column that is written next, so a step reads a view and
copies nothing. A split copies one slot to a free one; when a sequence ends, a live slot is copied into the gap.
"""

from __future__ import annotations

import torch
from torch import Tensor
from transformers.cache_utils import Cache, CacheLayerMixin, DynamicCache, DynamicLayer


class SlotLayer(CacheLayerMixin):
    """One layer's buffers; the window that a forward pass writes is set by :class:`SlotCache`."""

    def __init__(self, slots: int, columns: int) -> None:
        super().__init__()
        self.slots, self.columns = slots, columns
        self.slot, self.begin, self.written = 0, 0, 0

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        for name, states in (("keys", key_states), ("values", value_states)):
            _, heads, _, dim = states.shape
            setattr(self, name, states.new_empty(self.slots, heads, self.columns, dim))
        self.is_initialized = True

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: object, **kwargs: object
    ) -> tuple[Tensor, Tensor]:
        """Write (rows, heads, L, dim) at the window; return keys and values of its slots from column ``begin`` on."""
        if self.keys is None or self.values is None:
            self.lazy_initialization(key_states, value_states)
        assert self.keys is not None
        assert self.values is not None
        window = slice(self.slot, self.slot + key_states.shape[0])
        end = self.written + key_states.shape[2]
        self.keys[window, :, self.written : end] = key_states
        self.values[window, :, self.written : end] = value_states
        return self.keys[window, :, self.begin : end], self.values[window, :, self.begin : end]

    def take(self, slot: int, keys: Tensor, values: Tensor, *, written: int) -> None:
        """Put a sequence's (heads, L, dim) into a slot, so that it ends before column ``written``.

        The columns before it are set to 0. They are masked, but a fresh buffer may hold nan, and 0 · nan is nan.
        """
        if not self.is_initialized:
            self.lazy_initialization(keys[None], values[None])
        begin = written - keys.shape[1]
        for buffer, states in ((self.keys, keys), (self.values, values)):
            assert buffer is not None
            buffer[slot, :, :begin] = 0
            buffer[slot, :, begin:written] = states

    def copy(self, sources: Tensor, targets: Tensor, *, columns: int) -> None:
        """Copy the first ``columns`` of some slots to others; no slot is both source and target."""
        for buffer in (self.keys, self.values):
            assert buffer is not None
            buffer[targets, :, :columns] = buffer[sources, :, :columns]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.written - self.begin + query_length, 0

    def get_seq_length(self) -> int:
        return self.written

    def get_max_length(self) -> int:
        return self.columns


class SlotCache(Cache):
    """The cache of all layers.

    Args:
        layers: number of decoder layers.
        slots: largest number of live sequences.
        columns: longest sequence in tokens, padding included.
    """

    def __init__(self, *, layers: int, slots: int, columns: int) -> None:
        self.slot_layers = [SlotLayer(slots, columns) for _ in range(layers)]
        super().__init__(layers=list(self.slot_layers))

    def window(self, *, slot: int, begin: int, written: int) -> None:
        """Set what the next forward pass writes: slots from ``slot`` on, from column ``written`` on.

        Columns before ``begin``, which are padding in all rows, are not read.
        """
        for layer in self.slot_layers:
            layer.slot, layer.begin, layer.written = slot, begin, written

    def take(self, slot: int, computed: DynamicCache, row: int, places: list[int], *, written: int) -> None:
        """Fill a slot, up to column ``written``, with the positions ``places`` of a row of another cache."""
        for mine, theirs in zip(self.slot_layers, computed.layers, strict=True):
            assert isinstance(theirs, DynamicLayer)
            keys, values = theirs.keys, theirs.values
            assert keys is not None
            assert values is not None
            mine.take(slot, keys[row][:, places], values[row][:, places], written=written)

    def copy(self, moves: list[tuple[int, int]], *, columns: int) -> None:
        """Copy slots, as pairs (source, target)."""
        if not moves:
            return
        keys = self.slot_layers[0].keys
        assert keys is not None
        sources, targets = torch.tensor(moves, device=keys.device).T
        for layer in self.slot_layers:
            layer.copy(sources, targets, columns=columns)


def bytes_per_token(config: object, *, element: int) -> int:
    """Bytes of one token's keys and values over all layers; ``config`` is the model's, ``element`` bytes per number."""
    heads = config.num_attention_heads  # type: ignore[attr-defined]
    kv_heads = getattr(config, "num_key_value_heads", None) or heads
    dim = getattr(config, "head_dim", None) or config.hidden_size // heads  # type: ignore[attr-defined]
    return 2 * config.num_hidden_layers * kv_heads * dim * element  # type: ignore[attr-defined]
