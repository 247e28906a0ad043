"""The router's choice and the two ways to compute the chosen experts."""

from __future__ import annotations

import pytest
import torch

from llada_uni.backbone.grouped import grouped_linear, sort_by_expert
from llada_uni.backbone.moe import Experts, Router, Routing, dense_experts, grouped_experts, plain_experts
from tests.backbone.helpers import small_config


def random_router(seed: int, **changes) -> Router:
    router = Router(small_config(**changes))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        router.weight.normal_(generator=generator)
        router.expert_bias.normal_(0, 0.2, generator=generator)
    return router


def test_the_choice_follows_the_definition():
    router = random_router(0)
    x = torch.randn(50, 16, generator=torch.Generator().manual_seed(1))
    routing = router.eval()(x)
    for row in range(50):
        scores = (router.weight @ x[row]).sigmoid()
        biased = (scores + router.expert_bias).tolist()
        groups = sorted(range(4), key=lambda g: -sum(sorted(biased[2 * g : 2 * g + 2])[-2:]))[:2]
        inside = [e for e in range(8) if e // 2 in groups]
        best = sorted(inside, key=lambda e: -biased[e])[:2]
        assert sorted(routing.experts[row].tolist()) == sorted(best)
        chosen = scores[routing.experts[row]]
        assert torch.allclose(routing.weights[row], chosen / chosen.sum() * 2.5, atol=1e-6)


def test_groups_bind_the_choice():
    """The two best experts stand in groups that lose: they must not be chosen."""
    router = Router(small_config(topk_group=1))
    with torch.no_grad():
        router.weight.zero_()
        router.expert_bias.copy_(torch.tensor([0.9, -0.9, 0.8, -0.9, 0.5, 0.4, 0.0, 0.0]))
    routing = router(torch.ones(1, 16))
    assert sorted(routing.experts[0].tolist()) == [4, 5]


def test_the_bias_moves_the_choice_but_not_the_weights():
    router = Router(small_config(n_group=1, topk_group=1))
    with torch.no_grad():
        router.weight.zero_()
        router.expert_bias[6] = 5.0
        router.expert_bias[3] = 1.0
    routing = router(torch.ones(1, 16))
    assert sorted(routing.experts[0].tolist()) == [3, 6]
    assert torch.allclose(routing.weights, torch.full((1, 2), 1.25))


def test_load_counts_choices_in_training_only():
    router = random_router(2)
    x = torch.randn(30, 16, generator=torch.Generator().manual_seed(3))
    experts = router.train()(x).experts
    router(x)
    assert torch.equal(router.load, 2 * torch.bincount(experts.flatten(), minlength=8).float())
    router.eval()(x)
    with torch.no_grad():
        router.train()(x)
    assert router.load.sum() == 120
    router.reset_load()
    assert router.load.sum() == 0


@pytest.mark.parametrize("busy", [1, 3, 8])
@pytest.mark.parametrize("tokens", [1, 5, 64])
def test_grouped_and_dense_equal_plain_forward_and_backward(busy, tokens):
    """Also with idle experts and with very uneven loads."""
    generator = torch.Generator().manual_seed(tokens * 10 + busy)
    results = []
    experts = Experts(small_config(), "plain")
    start = [torch.randn(p.shape, generator=generator) for p in experts.parameters()]
    x0 = torch.randn(tokens, 16, generator=generator)
    chosen = torch.stack([torch.randperm(8, generator=generator)[:2] % busy for _ in range(tokens)])
    weights0 = torch.rand(tokens, 2, generator=generator)
    push = torch.randn(tokens, 16, generator=generator)
    for path in (plain_experts, grouped_experts, dense_experts):
        leaves = [t.clone().requires_grad_() for t in (x0, weights0, *start)]
        x, weights, gate, up, down = leaves
        out = path(x, Routing(weights, chosen, weights), gate, up, down)
        out.backward(push)
        results.append([out.detach(), *(leaf.grad for leaf in leaves)])
    for plain, *others in zip(*results, strict=True):
        for other in others:
            assert (plain - other).abs().max() / plain.abs().max().clamp(min=1) < 1e-5


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("inner", [8, 6])
def test_products_of_groups_equal_the_loop_with_and_without_the_kernel(dtype, inner):
    """The kernel is what a GPU runs as well; float64 and rows of 24 bytes go to the loop."""
    generator = torch.Generator().manual_seed(5)
    experts = torch.tensor([[2, 0], [2, 5], [0, 2]])  # experts 1, 3, 4 have nothing to do
    segments = sort_by_expert(experts, 6)
    rows = torch.randn(6, 16, generator=generator).to(dtype)
    weight = torch.randn(6, inner, 16, generator=generator).to(dtype)
    out = grouped_linear(rows, weight, segments)
    expected = torch.cat([rows[a:b] @ weight[e].t() for e, a, b in segments.busy])
    assert out.dtype == dtype and torch.allclose(out, expected, atol=1e-5)


def test_an_unknown_path_is_refused():
    with pytest.raises(ValueError, match="allowed: grouped, plain, dense"):
        Experts(small_config(), "fast")
