"""The experts of a block: the ones it wants most, and every token's best among them."""

from __future__ import annotations

import dataclasses

import torch

from llada_uni.backbone.block_routing import BlockRouting
from llada_uni.backbone.moe import Router
from tests.backbone.helpers import small_config

INF = float("inf")


def test_a_block_keeps_what_one_of_its_tokens_wants_most():
    scores = torch.tensor([[0.9, 0.1, 0.5, 0.2], [0.1, 0.8, 0.6, 0.3], [0.1, 0.2, 0.3, 0.4]])
    kept = BlockRouting.of([2, 1], [2, 3], "cpu").restrict(scores, scores)
    assert kept.tolist() == [
        [scores[0, 0].item(), scores[0, 1].item(), -INF, -INF],
        [scores[1, 0].item(), scores[1, 1].item(), -INF, -INF],
        [-INF, scores[2, 1].item(), scores[2, 2].item(), scores[2, 3].item()],
    ]


def test_a_token_without_experts_in_its_groups_takes_the_best_of_the_others():
    scores = torch.tensor([[0.9, 0.8, 0.1, 0.2], [0.3, 0.4, 0.6, 0.5]])
    grouped = torch.tensor([[0.9, 0.8, -INF, -INF], [-INF, -INF, 0.6, 0.5]])
    kept = BlockRouting.of([2], [2], "cpu").restrict(grouped, scores)  # the block's experts are 0 and 1
    assert kept.topk(2).indices.tolist() == [[0, 1], [1, 0]]


def test_a_router_uses_at_most_so_many_experts_a_block_and_its_own_weights():
    config = dataclasses.replace(small_config(), num_experts=16, num_experts_per_tok=3, n_group=4, topk_group=2)
    router = Router(config).double()
    generator = torch.Generator().manual_seed(0)
    torch.nn.init.normal_(router.weight, generator=generator)
    x = torch.randn(24, config.hidden_size, generator=generator, dtype=torch.float64)
    plain = router(x)
    every = router(x, BlockRouting.of([8, 8, 8], [16, 16, 16], "cpu"))
    assert torch.equal(plain.experts.sort().values, every.experts.sort().values)
    limited = router(x, BlockRouting.of([8, 8, 8], [3, 5, 16], "cpu"))
    used = [set(limited.experts[begin : begin + 8].flatten().tolist()) for begin in (0, 8, 16)]
    assert len(used[0]) == 3 and len(used[1]) <= 5
    assert torch.equal(limited.experts[16:].sort().values, plain.experts[16:].sort().values)
    scores = limited.logits.sigmoid().gather(1, limited.experts)
    shares = scores / scores.sum(-1, keepdim=True) if config.norm_topk_prob else scores
    assert torch.allclose(limited.weights, shares * config.routed_scaling_factor)
