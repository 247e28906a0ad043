"""The router bias: the sign of its step pushes load away from crowded experts."""

from __future__ import annotations

import torch

from llada_uni.training.balance import max_over_mean, update_bias


def test_one_step_by_hand():
    bias, load = torch.zeros(4), torch.tensor([6.0, 2.0, 0.0, 0.0])
    update_bias(bias, load, rate=0.1)
    excess = torch.tensor([0.5, 0.0, -0.25, -0.25])
    expected = -0.1 * excess / excess.square().mean().sqrt()
    assert torch.allclose(bias, expected - expected.mean())


def test_no_load_changes_nothing():
    bias = torch.tensor([1.0, -1.0])
    update_bias(bias, torch.zeros(2), 0.1)
    assert bias.tolist() == [1.0, -1.0]


def test_a_skewed_router_becomes_balanced():
    generator = torch.Generator().manual_seed(0)
    experts, bias = 8, torch.zeros(8)
    skew = torch.linspace(2.0, -2.0, experts)  # without a bias, nearly everything goes to the first two

    def load() -> torch.Tensor:
        scores = (torch.randn(2048, experts, generator=generator) + skew).sigmoid() + bias
        return torch.bincount(scores.topk(2).indices.flatten(), minlength=experts).float()

    assert max_over_mean(load()) > 2.5
    for _ in range(300):
        update_bias(bias, load(), rate=0.01)
    assert max_over_mean(load()) < 1.2
