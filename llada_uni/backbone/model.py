"""The whole backbone: token ids -> embeddings -> layers (attention, then dense or mixture of experts) ->
logits.

What is special about this model: attention is not causal but block-causal (the caller gives the mask), every
layer but the first ones has a mixture of experts, and the vocabulary holds text and image codes side by side.
Logits at a place speak about that very place, not about the next one.
Axes: B batch, T query places, S key places, D width, V vocabulary.
State-dict names are the released ones, but for the experts, which are stacked (see checkpoint/layout.py).
Source: arXiv:2604.20796 and the released configuration.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from llada_uni.backbone import forms, whole_layer
from llada_uni.backbone.attention import Attention, Linear
from llada_uni.backbone.block_routing import BlockRouting
from llada_uni.backbone.cache import KeyValueCache
from llada_uni.backbone.cached_attention import PackedCache
from llada_uni.backbone.moe import MixtureOfExperts, Router, SwiGLU
from llada_uni.backbone.norm import RMSNorm
from llada_uni.backbone.rope import rotary_tables
from llada_uni.config import BackboneConfig

if TYPE_CHECKING:
    from torch.nn.attention.flex_attention import BlockMask


class Layer(nn.Module):
    """x + attention(norm(x)), then x + feed-forward(norm(x))."""

    def __init__(self, config: BackboneConfig, layer: int, experts: str) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.attention = Attention(config, layer)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.mlp: nn.Module
        if config.is_dense(layer):
            self.mlp = SwiGLU(config.hidden_size, config.intermediate_size)
        else:
            self.mlp = MixtureOfExperts(config, experts)

    def forward(
        self,
        x: Tensor,
        rotary: tuple[Tensor, Tensor],
        mask: Tensor | BlockMask | None,
        cache: KeyValueCache | PackedCache | None,
        only: Tensor | None = None,
        blocks: BlockRouting | None = None,
    ) -> Tensor:
        """[B, T, D] -> [B, T, D]; with `only` [N], places of the B * T flattened ones, just theirs: [N, D]. blocks: limits
        the experts of each block; a block's choice then needs all of its tokens.
        """
        if isinstance(cache, PackedCache) and only is None and blocks is None:
            whole = whole_layer.compute(self, x, rotary, cache)
            if whole is not None:
                return whole
        x = x + self.attention(self.input_layernorm(x), rotary, mask, cache)
        if blocks is not None and isinstance(self.mlp, MixtureOfExperts):
            x = x + self.mlp(self.post_attention_layernorm(x), blocks)
            return x if only is None else x.flatten(0, 1).index_select(0, only)
        if only is not None:
            x = x.flatten(0, 1).index_select(0, only)
        return x + self.mlp(self.post_attention_layernorm(x))


class Trunk(nn.Module):
    """Embedding, layers and the final norm: what the released names call `model`."""

    def __init__(self, config: BackboneConfig, experts: str) -> None:
        super().__init__()
        # Given a weight, nn.Embedding does not draw one from global random state.
        self.word_embeddings = nn.Embedding(
            config.vocab_size, config.hidden_size, _weight=torch.empty(config.vocab_size, config.hidden_size)
        )
        self.layers = nn.ModuleList(Layer(config, i, experts) for i in range(config.num_hidden_layers))
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)


class Backbone(nn.Module):
    """The block-diffusion language model.

    experts: "grouped" (fast) or "plain" (the definition); both compute the same.
    generator: for the starting values; without one they are those of seed 0. On the meta device none are
    drawn.
    """

    def __init__(self, config: BackboneConfig, experts: str = "grouped", generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.config = config
        self.model = Trunk(config, experts)
        self.lm_head = Linear(config.hidden_size, config.vocab_size)
        if not self.lm_head.weight.is_meta:
            self.init_weights(generator or torch.Generator(self.lm_head.weight.device).manual_seed(0))

    @torch.no_grad()
    def init_weights(self, generator: torch.Generator) -> None:
        """Normal values of width `initializer_range` in every matrix; norms one, expert biases zero."""
        for parameter in self.parameters():
            if parameter.dim() == 1:
                parameter.fill_(1.0)
            else:
                parameter.normal_(0.0, self.config.initializer_range, generator=generator)

    def hidden(
        self,
        input_ids: Tensor,
        position_ids: Tensor | None = None,
        attention_mask: Tensor | BlockMask | None = None,
        cache: KeyValueCache | PackedCache | None = None,
        only: Tensor | None = None,
        blocks: BlockRouting | None = None,
    ) -> Tensor:
        """States after the final norm, [B, T, D]; with `only` [N] int64, places of the B * T flattened ones, just theirs
        [N, D]: the last layer then leaves out the feed-forward of all others.

        input_ids [B, T] int64; position_ids [B, T] or [1, T] (default: 0.. from the cache's length on);
        attention_mask [B or 1, 1, T, S] bool, True = may attend, with at least one True a row (None: all
        may; training on a GPU: a mask of FlexAttention), S = T, or the cache's length + T. With a cache the T places
        are appended and committed to it. blocks: limits the experts of each block of the B * T tokens.
        """
        if position_ids is None:
            assert not isinstance(cache, PackedCache)  # whose sequences have places of their own
            start = 0 if cache is None else cache.length
            position_ids = torch.arange(start, start + input_ids.shape[1], device=input_ids.device)[None]
        x = self.model.word_embeddings(input_ids)
        rotary = rotary_tables(position_ids, self.config.rotary_dim, self.config.rope_theta, x.dtype)
        *layers, last = self.model.layers
        for layer in layers:
            x = layer(x, rotary, attention_mask, cache, blocks=blocks)
        x = last(x, rotary, attention_mask, cache, only, blocks)
        if cache is not None:
            cache.advance(input_ids.shape[1])
        return self.model.norm(x)

    def logits(self, hidden: Tensor, ids: slice | Tensor | None = None) -> Tensor:
        """Scores of the vocabulary for states [..., D] -> [..., V] in float32 (float64 for a float64 model).

        ids: only these rows of the vocabulary: a slice (no copy is made) or an index tensor [V'].
        """
        weight = self.lm_head.weight if ids is None else self.lm_head.weight[ids]
        scores = forms.linear(hidden, weight)
        return scores if scores.dtype == torch.float64 else scores.float()

    def forward(
        self,
        input_ids: Tensor,
        position_ids: Tensor | None = None,
        attention_mask: Tensor | BlockMask | None = None,
        cache: KeyValueCache | None = None,
        logits_at: Tensor | None = None,
    ) -> Tensor:
        """Logits in float32: [B, T, V], or only where wanted; other arguments as for `hidden`.

        logits_at: [B, T] bool -> [places, V] in the order of `input_ids[logits_at]`;
        [places] int64 into the B * T flattened places -> [places, V]. The head is the most expensive product of a
        step.
        """
        if logits_at is not None and logits_at.dtype == torch.bool:
            logits_at = logits_at.flatten().nonzero().squeeze(1)
        return self.logits(self.hidden(input_ids, position_ids, attention_mask, cache, logits_at))

    def reset_load(self) -> None:
        """Set every router's count of choices back to zero."""
        for router in self.routers():
            router.reset_load()

    def routers(self) -> list[Router]:
        """The routers of all mixture-of-experts layers, from the first on."""
        return [layer.mlp.gate for layer in self.model.layers if isinstance(layer.mlp, MixtureOfExperts)]
