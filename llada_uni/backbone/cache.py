"""Keys and values of places that will not change any more, in memory taken once.

Each layer appends the keys and values of the tokens of one forward behind the committed ones and gets all of
them back; the backbone then moves `length` on once a forward. `truncate` forgets places behind a length,
which is how a draft block is thrown away: keeping finished blocks is exact because attention is block-causal.
Axes: B batch (branches), H key/value heads, S places, d features a head.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from llada_uni.config import BackboneConfig


class KeyValueCache:
    """Preallocated keys and values [B, H, capacity, d] a layer; `length` places are committed."""

    def __init__(
        self,
        config: BackboneConfig,
        batch: int,
        capacity: int,
        device: torch.device | str | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        shape = (config.num_hidden_layers, batch, config.num_key_value_heads, capacity, config.head_dim)
        self.keys = torch.empty(shape, device=device, dtype=dtype)
        self.values = torch.empty(shape, device=device, dtype=dtype)
        self.capacity = capacity
        self.length = 0

    def append(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Write [B, H, T, d] behind the committed places of `layer`; returns all places so far [B, H, length
        + T, d].

        The length itself moves with `advance`, after the last layer. Raises ValueError when the capacity is
        too small.
        """
        end = self.length + keys.shape[2]
        if end > self.capacity:
            raise ValueError(f"cache: {end} places do not fit into a capacity of {self.capacity}")
        self.keys[layer, :, :, self.length : end] = keys
        self.values[layer, :, :, self.length : end] = values
        return self.keys[layer, :, :, :end], self.values[layer, :, :, :end]

    def advance(self, tokens: int) -> None:
        """Commit the `tokens` places that every layer has just appended."""
        self.length += tokens

    def truncate(self, length: int) -> None:
        """Keep the first `length` places only. Raises ValueError when fewer are there."""
        if not 0 <= length <= self.length:
            raise ValueError(f"cache: cannot keep {length} of {self.length} places")
        self.length = length

    def pruned(self, kept: Sequence[Tensor], room: int) -> PrunedCache:
        """The places kept[layer] [K] of the one sequence of this cache, with room for `room` more tokens of a draft."""
        keys: list[Tensor] = []
        values: list[Tensor] = []
        for layer, places in enumerate(kept):
            shape = (1, self.keys.shape[2], len(places) + room, self.keys.shape[4])
            for source, target in ((self.keys, keys), (self.values, values)):
                buffer = source.new_empty(shape)
                torch.index_select(source[layer], 2, places, out=buffer[:, :, : len(places)])
                target.append(buffer)
        return PrunedCache(keys, values, [len(places) for places in kept])


class PrunedCache:
    """A selection of the places of one sequence, another for every layer; drafts are seen behind it, never committed.

    keys, values: for every layer [1, H, K + room, d], of which the first K = lengths[layer] are the selection.
    """

    def __init__(self, keys: list[Tensor], values: list[Tensor], lengths: list[int]) -> None:
        self.keys, self.values, self.lengths = keys, values, lengths

    def append(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Put the draft's [1, H, T, d] behind the selection; returns both [1, H, K + T, d]."""
        start = self.lengths[layer]
        end = start + keys.shape[2]
        self.keys[layer][:, :, start:end] = keys
        self.values[layer][:, :, start:end] = values
        return self.keys[layer][:, :, :end], self.values[layer][:, :, :end]

    def advance(self, tokens: int) -> None:
        """A draft is never committed: the next one takes its place."""
