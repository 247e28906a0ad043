"""Mixture of experts: a router that picks a few experts a token, and three ways to compute them.

x [N, D] -> router -> (weights, experts) [N, K] -> chosen experts' SwiGLU, weighted sum -> [N, D], plus a
shared expert.
Axes: N tokens (batch and places flattened), D width, E experts, K experts a token, I inner features of an
expert, M = N * K (token, expert) pairs.
Source: arXiv:2604.20796 and the released configuration. The plain path says what is computed; the grouped
path sorts the pairs by expert, so that each expert that has work does it in a few matrix products on
contiguous rows. The dense path lets every expert do all tokens, in products of fixed shape: for exported graphs.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from llada_uni.backbone import forms
from llada_uni.backbone.attention import Linear
from llada_uni.backbone.block_routing import BlockRouting
from llada_uni.backbone.grouped import Segments, combine, dispatch, grouped_linear, sort_by_expert
from llada_uni.backbone.native import products
from llada_uni.config import BackboneConfig


class Routing(NamedTuple):
    """The router's answer for N tokens."""

    weights: Tensor  # [N, K] float32 (or wider): share of each chosen expert
    experts: Tensor  # [N, K] int64: the chosen experts, in no particular order
    logits: Tensor  # [N, E] float32 (or wider): before the sigmoid


class Router(nn.Module):
    """Sigmoid router with groups and a bias that moves the choice but not the weights.

    In training mode, with gradients on, `load` [E] counts how often each expert was chosen since
    `reset_load()`; it is no part of the state dict. `expert_bias` [E] is float32 state without gradient: the
    training's balance rule writes it.
    """

    expert_bias: Tensor
    load: Tensor

    def __init__(self, config: BackboneConfig) -> None:
        super().__init__()
        self.top_k, self.groups, self.kept_groups = (
            config.num_experts_per_tok,
            config.n_group,
            config.topk_group,
        )
        self.normalize, self.scaling = config.norm_topk_prob, config.routed_scaling_factor
        self.weight = nn.Parameter(torch.empty(config.num_experts, config.hidden_size))
        self.register_buffer("expert_bias", torch.zeros(config.num_experts))
        self.register_buffer("load", torch.zeros(config.num_experts), persistent=False)

    def reset_load(self) -> None:
        """Start counting again (also the way to get a real counter after loading from the meta device)."""
        self.load = torch.zeros(self.weight.shape[0], device=self.weight.device)

    def forward(self, x: Tensor, blocks: BlockRouting | None = None) -> Routing:
        """x [N, D] -> Routing. The arithmetic is float32 (float64 for a float64 model), whatever x is. blocks: limits the
        experts of each block (block_routing.py)."""
        wide = x.dtype if x.dtype == torch.float64 else torch.float32
        logits = forms.linear(x.to(wide), self.weight.to(wide))
        if blocks is None and forms.is_native(logits, self.expert_bias):
            kept = (self.top_k, self.groups, self.kept_groups)
            return Routing(*products.route(logits, self.expert_bias, *kept, self.normalize, self.scaling), logits)
        scores = logits.sigmoid()
        experts = self._choose(scores.detach() + self.expert_bias.to(wide), blocks)
        weights = scores.gather(1, experts)
        if self.normalize:
            weights = weights / (weights.sum(-1, keepdim=True) + 1e-20)
        if self.training and torch.is_grad_enabled():  # a sample drawn during training does not count
            self._count(experts)
        return Routing(weights * self.scaling, experts, logits)

    def _choose(self, biased: Tensor, blocks: BlockRouting | None = None) -> Tensor:
        """[N, E] -> [N, K]: the best experts inside the groups whose two best members score highest
        together.
        """
        grouped = self._grouped(biased)
        chosen_from = grouped if blocks is None else blocks.restrict(grouped, biased)
        return chosen_from.topk(self.top_k, dim=-1, sorted=False).indices

    def _grouped(self, biased: Tensor) -> Tensor:
        """[N, E] -> the same with -inf outside each token's groups."""
        if self.kept_groups == self.groups:
            return biased
        by_group = biased.unflatten(1, (self.groups, -1))
        strength = by_group.topk(min(2, by_group.shape[-1]), dim=-1, sorted=False).values.sum(-1)
        kept = strength.topk(self.kept_groups, dim=-1, sorted=False).indices
        closed = torch.ones_like(strength, dtype=torch.bool).scatter_(1, kept, False)
        return by_group.masked_fill(closed.unsqueeze(-1), float("-inf")).flatten(1)

    @torch.no_grad()
    def _count(self, experts: Tensor) -> None:
        if self.load.device != experts.device:
            self.reset_load()
        self.load += torch.bincount(experts.flatten(), minlength=self.load.shape[0])


class SwiGLU(nn.Module):
    """down(silu(gate(x)) * up(x)): the dense feed-forward network, and the shared expert."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.gate_proj, self.up_proj = Linear(width, inner), Linear(width, inner)
        self.down_proj = Linear(inner, width)

    def forward(self, x: Tensor) -> Tensor:
        parts = (self.gate_proj, self.up_proj, self.down_proj)
        if all(type(part) is Linear for part in parts):  # and not something that an adapter put in its place
            weights = tuple(part.weight for part in parts)
            if forms.is_native(x, *weights):
                return forms.native_swiglu(x, *weights)
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Experts(nn.Module):
    """All routed experts of a layer, stacked: gate_proj and up_proj [E, I, D], down_proj [E, D, I]."""

    def __init__(self, config: BackboneConfig, path: str) -> None:
        super().__init__()
        if path not in PATHS:
            raise ValueError(f"experts: the path {path!r} is unknown; allowed: {', '.join(PATHS)}")
        experts, inner, width = config.num_experts, config.moe_intermediate_size, config.hidden_size
        self.path = path
        self.gate_proj = nn.Parameter(torch.empty(experts, inner, width))
        self.up_proj = nn.Parameter(torch.empty(experts, inner, width))
        self.down_proj = nn.Parameter(torch.empty(experts, width, inner))

    def forward(self, x: Tensor, routing: Routing) -> Tensor:
        """x [N, D] -> [N, D]: every token's weighted sum over its experts."""
        return PATHS[self.path](x, routing, self.gate_proj, self.up_proj, self.down_proj)


def plain_experts(x: Tensor, routing: Routing, gate: Tensor, up: Tensor, down: Tensor) -> Tensor:
    """The definition: one expert after another on the tokens that chose it. Slow, and what grouped must
    equal.
    """
    out = torch.zeros_like(x)
    for expert in range(gate.shape[0]):
        token, place = (routing.experts == expert).nonzero(as_tuple=True)
        rows = x[token]
        inner = F.silu(rows @ gate[expert].t()) * (rows @ up[expert].t())
        weight = routing.weights[token, place].unsqueeze(-1).to(x.dtype)
        out = out.index_add(0, token, (inner @ down[expert].t()) * weight)
    return out


def grouped_experts(x: Tensor, routing: Routing, gate: Tensor, up: Tensor, down: Tensor) -> Tensor:
    """The fast path: pairs sorted by expert, one matrix product an expert with work. Equals
    `plain_experts`. On a CPU without gradients in the form that is fastest for the shape (forms.py).
    """
    if forms.applies(x, gate, up, down):
        return forms.experts(x, routing.weights, routing.experts, gate, up, down)
    segments: Segments = sort_by_expert(routing.experts, gate.shape[0])
    rows = dispatch(x, segments)  # [M, D]
    inner = F.silu(grouped_linear(rows, gate, segments)) * grouped_linear(rows, up, segments)
    return combine(grouped_linear(inner, down, segments), routing.weights.to(x.dtype), segments)


def dense_experts(x: Tensor, routing: Routing, gate: Tensor, up: Tensor, down: Tensor) -> Tensor:
    """Every expert on every token, weighted by 0 where it was not chosen. Equals `plain_experts`; E / K times its work, but
    no shape depends on the choice, and the operations are those that every exchange format knows.
    """
    shares = x.new_zeros(x.shape[0], gate.shape[0]).scatter_add(1, routing.experts, routing.weights.to(x.dtype))  # [N, E]
    inner = F.silu(x @ gate.transpose(1, 2)) * (x @ up.transpose(1, 2))  # [E, N, I]
    return ((inner * shares.t().unsqueeze(-1)) @ down.transpose(1, 2)).sum(0)


PATHS = {"grouped": grouped_experts, "plain": plain_experts, "dense": dense_experts}


class MixtureOfExperts(nn.Module):
    """Router, routed experts and the shared expert: [B, T, D] -> [B, T, D]."""

    def __init__(self, config: BackboneConfig, path: str) -> None:
        super().__init__()
        self.gate = Router(config)
        self.experts: nn.Module = Experts(config, path)  # or quantized ones (quantized.py)
        self.shared_experts = SwiGLU(config.hidden_size, config.moe_intermediate_size * config.num_shared_experts)

    def forward(self, x: Tensor, blocks: BlockRouting | None = None) -> Tensor:
        flat = x.reshape(-1, x.shape[-1])
        routed = self.experts(flat, self.gate(flat, blocks))
        return (routed + self.shared_experts(flat)).view_as(x)
