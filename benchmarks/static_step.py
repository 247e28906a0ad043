"""A step of fixed shape, for a GPU: R sequences with one open block each, their caches slots of one memory.

tokens [R, B] and the places where the blocks begin [R] -> one forward -> the likeliest token and its probability at every
place [R, B]. Shapes and addresses never change and nothing waits for the host, so that `capture` can record the step as a
CUDA graph, which replays without any work of Python. Without a graph the same operations run one by one, on any device;
that is what the tests hold against the usual path.
A finished block is committed by a step over its final tokens: its keys and values are overwritten in place, and the next
step begins behind it. Greedy, without guidance: those are the caller's (branches are rows).
Axes: R rows, B places of a block, S places of a slot, H key/value heads, d features a head, V vocabulary.
"""

from __future__ import annotations

import torch
from torch import Tensor

from llada_uni.backbone.cache import KeyValueCache
from llada_uni.backbone.model import Backbone
from llada_uni.config import BackboneConfig


class SlotCache:
    """Keys and values [R, H, S, d] a layer; a forward writes each row's tokens at its own `places` [R, B]."""

    def __init__(self, config: BackboneConfig, places: Tensor, capacity: int, dtype: torch.dtype) -> None:
        shape = (config.num_hidden_layers, places.shape[0], config.num_key_value_heads, capacity, config.head_dim)
        # Zeros: what is masked is still multiplied by 0, and must not be NaN.
        self.keys = torch.zeros(shape, device=places.device, dtype=dtype)
        self.values = torch.zeros(shape, device=places.device, dtype=dtype)
        self.places = places

    def append(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Write [R, H, B, d] at the places; returns whole slots [R, H, S, d], of which a mask has to choose."""
        index = self.places[:, None, :, None].expand_as(keys)
        self.keys[layer].scatter_(2, index, keys)
        self.values[layer].scatter_(2, index, values)
        return self.keys[layer], self.values[layer]

    def advance(self, tokens: int) -> None:
        """The caller says where a row goes on."""


class StaticStep:
    """Steps of `rows` sequences of at most `capacity` places, `block` of them at a time.

    choice: the rows of the vocabulary that may be chosen, None for all. forbidden: the mask's place among them.
    """

    def __init__(
        self,
        model: Backbone,
        rows: int,
        block: int,
        capacity: int,
        choice: slice | None = None,
        forbidden: int | None = None,
    ) -> None:
        weight = model.lm_head.weight
        self.model, self.choice, self.forbidden = model, choice, forbidden
        self.tokens = torch.zeros(rows, block, dtype=torch.int64, device=weight.device)
        self.begin = torch.zeros(rows, dtype=torch.int64, device=weight.device)
        self.offsets = torch.arange(block, device=weight.device)
        self.slots = torch.arange(capacity, device=weight.device)
        self.places = self.offsets.repeat(rows, 1)
        self.cache = SlotCache(model.config, self.places, capacity, weight.dtype)
        self._graph: torch.cuda.CUDAGraph | None = None
        self._drafts: tuple[Tensor, Tensor] | None = None

    def take(self, row: int, cache: KeyValueCache) -> None:
        """Begin a row with the committed places of a cache of one sequence."""
        length = cache.length
        self.cache.keys[:, row, :, :length] = cache.keys[:, 0, :, :length]
        self.cache.values[:, row, :, :length] = cache.values[:, 0, :, :length]

    @torch.inference_mode()
    def __call__(self, tokens: Tensor, begin: Tensor) -> tuple[Tensor, Tensor]:
        """tokens [R, B], begin [R] (places before each block) -> choices (rows of the vocabulary, or of its part) and
        their probabilities [R, B]. With a graph these are its own memory, which the next step overwrites.
        """
        self.tokens.copy_(tokens, non_blocking=True)
        self.begin.copy_(begin, non_blocking=True)
        if self._graph is None:
            return self._forward()
        self._graph.replay()
        return self._drafts

    @torch.inference_mode()
    def capture(self) -> None:
        """Record the step as a CUDA graph. RuntimeError where something in it waits for the host."""
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):  # lets libraries take their memory before it is recorded
            for _ in range(3):
                self._forward()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            drafts = self._forward()
        self._graph, self._drafts = graph, drafts

    def _forward(self) -> tuple[Tensor, Tensor]:
        torch.add(self.begin[:, None], self.offsets, out=self.places)
        seen = self.slots < (self.begin + len(self.offsets))[:, None]  # [R, S]
        mask = seen[:, None, None].expand(-1, 1, len(self.offsets), -1)
        states = self.model.hidden(self.tokens, self.places, mask, self.cache)
        shares = self.model.logits(states, self.choice).softmax(-1)
        if self.forbidden is not None:
            shares[..., self.forbidden] = -1.0
        confidence, drafts = shares.max(-1)
        return drafts, confidence
