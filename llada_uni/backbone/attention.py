"""Grouped-query attention with normalized queries and keys.

x [B, T, D] -> fused projection -> queries, keys (RMSNorm, rotary), values -> softmax attention -> [B, T, D].
Axes: B batch, T query places, S key places, D width, H query heads, G key/value heads, d features a head.
Source: arXiv:2604.20796 and the released configuration.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from llada_uni.backbone import forms
from llada_uni.backbone.cache import KeyValueCache
from llada_uni.backbone.cached_attention import PackedCache
from llada_uni.backbone.native import products
from llada_uni.backbone.norm import RMSNorm, rms_norm
from llada_uni.backbone.rope import apply_rotary
from llada_uni.config import BackboneConfig

if TYPE_CHECKING:
    from torch.nn.attention.flex_attention import BlockMask


class Linear(nn.Linear):
    """A projection without bias, whose values are set by the backbone and never by global random state."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, bias=False)

    def reset_parameters(self) -> None:
        return

    def forward(self, x: Tensor) -> Tensor:
        return forms.linear(x, self.weight)


class Attention(nn.Module):
    """One attention sub-layer; `layer` is its number, under which a cache keeps its keys and values."""

    def __init__(self, config: BackboneConfig, layer: int) -> None:
        super().__init__()
        self.layer = layer
        self.heads, self.groups, self.head_dim = (
            config.num_attention_heads,
            config.num_key_value_heads,
            config.head_dim,
        )
        self.eps = config.rms_norm_eps
        self.query_key_value = Linear(config.hidden_size, (self.heads + 2 * self.groups) * self.head_dim)
        self.query_layernorm = RMSNorm(self.head_dim, self.eps)
        self.key_layernorm = RMSNorm(self.head_dim, self.eps)
        self.dense = Linear(self.heads * self.head_dim, config.hidden_size)

    def head_scale(self) -> Tensor:
        """[H + G, d]: queries and keys lie side by side and are normalized together, each with its own scale."""
        parts = ((self.query_layernorm, self.heads), (self.key_layernorm, self.groups))
        return torch.cat([norm.weight.expand(count, -1) for norm, count in parts])

    def forward(
        self,
        x: Tensor,
        rotary: tuple[Tensor, Tensor],
        mask: Tensor | BlockMask | None,
        cache: KeyValueCache | PackedCache | None,
    ) -> Tensor:
        """x [B, T, D], rotary tables of the T places, mask [B or 1, 1, T, S] bool (True = may attend), a mask of
        FlexAttention (training on a GPU, masks.packed_flex), or None. With a PackedCache B is 1 and it masks.
        """
        batch, tokens, _ = x.shape
        fused = self.query_key_value(x).view(batch, tokens, self.heads + 2 * self.groups, self.head_dim)
        queries_keys, values = fused.split((self.heads + self.groups, self.groups), 2)
        scale = self.head_scale()
        if rotary[0].shape[0] == batch and forms.is_native(fused, scale, *rotary):
            turned = products.turn(fused, scale, rotary, self.eps)
        else:
            turned = apply_rotary(rms_norm(queries_keys, scale, self.eps), rotary)
        queries, keys = turned.transpose(1, 2).split((self.heads, self.groups), 1)
        values = values.transpose(1, 2)
        if isinstance(cache, PackedCache):
            mixed = cache.attend(self.layer, queries, keys, values)
        else:
            if cache is not None:
                keys, values = cache.append(self.layer, keys, values)
            mixed = attend(queries, keys, values, mask)
        return self.dense(mixed.transpose(1, 2).reshape(batch, tokens, -1))


def attend(queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | BlockMask | None) -> Tensor:
    """Softmax attention of [B, H, T, d] over [B, G, S, d], heads sharing the key groups in order -> [B, H, T, d]."""
    shared = queries.shape[1] != keys.shape[1]
    if mask is None or isinstance(mask, Tensor):
        return F.scaled_dot_product_attention(queries, keys, values, attn_mask=mask, enable_gqa=shared)
    return _flex(queries.is_cuda)(queries, keys, values, block_mask=mask, enable_gqa=shared)


@lru_cache
def _flex(compiled: bool):
    """FlexAttention: one compiled kernel on a GPU; elsewhere its slow definition, which has no backward pass."""
    from torch.nn.attention.flex_attention import flex_attention

    return torch.compile(flex_attention) if compiled else flex_attention
