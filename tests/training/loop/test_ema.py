"""Averaged weights against the formula written out."""

from __future__ import annotations

import torch
from torch import nn

from llada_uni.training.loop.ema import Averages


def test_averages_follow_the_formula_and_can_be_put_in_place():
    weight = nn.Parameter(torch.tensor([1.0, 2.0]))
    averages = Averages({"w": weight}, decay=0.5)
    expected = weight.detach().clone()
    for step in range(12):
        weight.data += step
        averages.update(step)
        decay = min(0.5, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * weight.detach()
    torch.testing.assert_close(averages.values["w"], expected)
    last = weight.detach().clone()
    with averages.applied():
        assert torch.equal(weight.detach(), averages.values["w"])
    assert torch.equal(weight.detach(), last)


def test_decay_0_keeps_nothing():
    weight = nn.Parameter(torch.ones(2))
    averages = Averages({"w": weight}, decay=0.0)
    averages.update(3)
    with averages.applied():
        assert torch.equal(weight, torch.ones(2))
    assert averages.values == {}


def test_weights_come_back_after_a_failure_inside():
    weight = nn.Parameter(torch.zeros(2))
    averages = Averages({"w": weight}, decay=0.9)
    weight.data += 1
    try:
        with averages.applied():
            raise RuntimeError
    except RuntimeError:
        pass
    assert torch.equal(weight.detach(), torch.ones(2))
