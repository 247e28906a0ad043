"""One step of the backbone with fixed shapes: an open block in front of a memory of keys and values that the caller keeps.

ids [1, T], positions [1, T], seen [1, C + T], keys and values [L, 1, G, C, d] -> logits [1, T, V], new keys and values
[L, 1, G, T, d]. Nothing is remembered: the caller copies the new keys and values of a finished block into the memory. One graph
serves all of a generation, prompts too, because attention is block-causal: a prompt goes through it block by block.
Axes: L layers, G key/value heads, C the memory's capacity, T tokens of a block, d features a head, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn

from llada_uni.backbone.cache import KeyValueCache
from llada_uni.backbone.model import Backbone
from llada_uni.backbone.moe import Experts

INPUTS = ("ids", "positions", "seen", "keys", "values")
OUTPUTS = ("logits", "new_keys", "new_values")


class BlockInputs(NamedTuple):
    """What a step reads. seen: True where a position of the memory, then of the block, may be attended to."""

    ids: Tensor
    positions: Tensor
    seen: Tensor
    keys: Tensor
    values: Tensor


class BlockStep(nn.Module):
    """The backbone as a function of tensors alone."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(
        self, ids: Tensor, positions: Tensor, seen: Tensor, keys: Tensor, values: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Shapes and meanings: at the top of this file. int64, int64, bool and twice float32 -> three times float32."""
        memory = _Memory(keys, values)
        mask = seen[:, None, None, :].expand(-1, 1, ids.shape[1], -1)
        # The backbone asks nothing of its cache but `append` and `advance`.
        states = self.backbone.hidden(ids, positions, mask, memory)  # type: ignore[arg-type]
        return self.backbone.logits(states), torch.stack(memory.new_keys), torch.stack(memory.new_values)


class _Memory:
    """The caller's keys and values, with what the block adds kept apart."""

    def __init__(self, keys: Tensor, values: Tensor) -> None:
        self.keys, self.values = keys, values
        self.new_keys: list[Tensor] = []
        self.new_values: list[Tensor] = []

    def append(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        self.new_keys.append(keys)
        self.new_values.append(values)
        return torch.cat((self.keys[layer], keys), 2), torch.cat((self.values[layer], values), 2)

    def advance(self, tokens: int) -> None:
        """The caller says where it goes on."""


@contextmanager
def dense_experts(backbone: Backbone) -> Iterator[None]:
    """Inside, experts are computed in products whose shapes do not depend on the router's choice."""
    experts = [module for module in backbone.modules() if isinstance(module, Experts)]
    before = [module.path for module in experts]
    for module in experts:
        module.path = "dense"
    try:
        yield
    finally:
        for module, path in zip(experts, before, strict=True):
            module.path = path


@torch.no_grad()
def block_case(backbone: Backbone, block: int, capacity: int, length: int) -> tuple[BlockInputs, tuple[Tensor, Tensor, Tensor]]:
    """An open block of random tokens behind `length` committed ones, and what the usual path computes for it: logits, new
    keys, new values. The inputs are those of a `BlockStep` with this block and capacity.
    """
    config = backbone.config
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(config.vocab_size, (1, length + block), generator=generator)
    cache = KeyValueCache(config, 1, capacity + block, dtype=backbone.lm_head.weight.dtype)
    cache.keys.zero_()
    cache.values.zero_()
    for start in range(0, length, block):
        backbone.hidden(ids[:, start : min(start + block, length)], cache=cache)
    keys, values = cache.keys[..., :capacity, :].clone(), cache.values[..., :capacity, :].clone()
    logits = backbone(ids[:, length:], cache=cache)
    new = slice(length, length + block)
    seen = torch.cat((torch.arange(capacity) < length, torch.ones(block, dtype=torch.bool)))[None]
    inputs = BlockInputs(ids[:, length:], torch.arange(length, length + block)[None], seen, keys, values)
    return inputs, (logits, cache.keys[..., new, :].clone(), cache.values[..., new, :].clone())
