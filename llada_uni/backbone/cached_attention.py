"""Attention of a packed stream: the new tokens of many sequences side by side, each with a cache of its own.

Projections, experts and head see one long stream [1, N, D], so that weights are read once for all sequences; only the
attention is done sequence by sequence. The new tokens of a sequence are cut at the borders of its blocks, and each
block attends to its sequence up to its own end: that is block-causal attention, without a mask and without padding. On a CPU in
float32 all sequences of a layer are one call of what is compiled (native/attention.h).
Equals `Attention` with the mask `masks.block_causal` on each sequence alone.
Axes: N new tokens of all sequences, S places of one sequence, H query heads, G key/value heads, d features a head.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from llada_uni.backbone import forms
from llada_uni.backbone.cache import KeyValueCache, PrunedCache
from llada_uni.backbone.native import products


@dataclass(frozen=True)
class Span:
    """One sequence's new tokens: [start, stop) of the stream. ends: where its blocks end, in the stream, the last at stop."""

    cache: KeyValueCache | PrunedCache
    start: int
    stop: int
    ends: tuple[int, ...]


class PackedCache:
    """What `Backbone.hidden` takes as its cache when the tokens [1, N] are those of several sequences."""

    def __init__(self, spans: Sequence[Span]) -> None:
        self.spans = spans
        self._described: ctypes.Array[products.Sequence] | None = None
        self._ends: list[ctypes.Array[ctypes.c_int64]] = []

    def sequences(self) -> ctypes.Array[products.Sequence]:
        """The spans for what is compiled; their caches are plain. Good for all layers, until `advance`."""
        if self._described is None:
            self._ends = [(ctypes.c_int64 * len(span.ends))(*span.ends) for span in self.spans]  # must outlive the pointers
            described = map(_described, self.spans, self._ends)
            self._described = (products.Sequence * len(self.spans))(*described)
        return self._described

    def is_native(self, heads: int, groups: int, width: int) -> bool:
        """Whether what is compiled can read the caches, and takes heads of this width and number."""
        plain = all(isinstance(s.cache, KeyValueCache) and s.cache.keys.dtype == torch.float32 for s in self.spans)
        return plain and products.attends(heads, groups, width)

    def attend(self, layer: int, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """queries [1, H, N, d], keys and values [1, G, N, d] of the new tokens -> mixed values [1, H, N, d].

        The keys and values go into the caches, behind what these hold already.
        """
        if forms.is_native(queries) and self.is_native(queries.shape[1], keys.shape[1], queries.shape[3]):
            return products.attend(self.sequences(), layer, queries, keys, values)
        grouped = queries.shape[1] != keys.shape[1]
        # In memory the heads of a token lie together, which is how the caller goes on.
        mixed = queries.new_empty(queries.transpose(1, 2).shape).transpose(1, 2)
        for span in self.spans:
            new = slice(span.start, span.stop)
            all_keys, all_values = span.cache.append(layer, keys[:, :, new], values[:, :, new])
            offset = all_keys.shape[2] - span.stop
            begin = span.start
            for end in span.ends:
                seen = offset + end
                mixed[:, :, begin:end] = F.scaled_dot_product_attention(
                    queries[:, :, begin:end], all_keys[:, :, :seen], all_values[:, :, :seen], enable_gqa=grouped
                )
                begin = end
        return mixed

    def advance(self, tokens: int) -> None:
        """Commit the new tokens of every sequence; `tokens` is their number in all."""
        self._described = None
        for span in self.spans:
            span.cache.advance(span.stop - span.start)


def _described(span: Span, ends: ctypes.Array[ctypes.c_int64]) -> products.Sequence:
    cache = span.cache
    assert isinstance(cache, KeyValueCache)
    if cache.length + span.stop - span.start > cache.capacity:
        raise ValueError(f"cache: {span.stop - span.start} tokens do not fit behind {cache.length} of {cache.capacity}")
    layer, _, group, _, _ = cache.keys.stride()
    where = (cache.keys.data_ptr(), cache.values.data_ptr(), layer, group, cache.length)
    return products.Sequence(*where, span.start, span.stop, ends, len(ends))
