"""Advantages, which answers are learned from, and the clipped objective, on numbers."""

from __future__ import annotations

import itertools
import math
import random

import pytest
import torch

from llada_uni.training.reward.objective import advantages, clipped_objective, most_telling


def test_advantages_are_the_rewards_less_their_mean():
    assert advantages([1.0, 0.0, 0.0, 1.0, 0.5]) == [0.5, -0.5, -0.5, 0.5, 0.0]


def test_the_answers_that_differ_most_have_the_largest_variance_of_all_subsets():
    rng = random.Random(0)
    for _ in range(50):
        rewards = [rng.choice((0.0, 0.0, 1.0, rng.random())) for _ in range(7)]
        best = max(variance([rewards[i] for i in some]) for some in itertools.combinations(range(7), 4))
        chosen = most_telling(rewards, 4)
        assert chosen == sorted(set(chosen)) and len(chosen) == 4
        assert variance([rewards[i] for i in chosen]) == pytest.approx(best)
    assert most_telling([0.3, 0.1], 5) == [0, 1]


def variance(values: list[float]) -> float:
    mean = sum(values) / len(values)
    return sum((value - mean) ** 2 for value in values)


@pytest.mark.parametrize(
    "log_ratio, advantage, gain, slope",
    [
        (0.0, 2.0, 2.0, 2.0),
        (math.log(1.1), 1.0, 1.1, 1.1),
        (math.log(1.5), 1.0, 1.2, 0.0),  # above 1.2 nothing more is to be had
        (math.log(1.5), -1.0, -1.5, -1.5),  # but what is bad is taken back from wherever it is
        (math.log(0.5), -1.0, -0.7, 0.0),
        (math.log(0.5), 1.0, 0.5, 0.5),
        (50.0, -1.0, -math.exp(10.0), 0.0),  # kept within 10
    ],
)
def test_the_clipped_objective(log_ratio, advantage, gain, slope):
    length = 4.0
    new = torch.tensor([length * log_ratio - 3.0], dtype=torch.float64, requires_grad=True)
    old, gains, lengths = (torch.tensor([value], dtype=torch.float64) for value in (-3.0, advantage, length))
    found = clipped_objective(new, old, None, gains, lengths, (0.3, 0.2), 0.0)
    assert float(found.total.detach()) == pytest.approx(-gain)
    found.total.backward()
    assert float(new.grad) == pytest.approx(-slope / length)
    assert int(found.clipped) == (slope == 0.0 and abs(log_ratio) < 10)


def test_the_distance_to_the_reference_is_squared_and_by_length():
    new = torch.tensor([-2.0, -6.0], dtype=torch.float64, requires_grad=True)
    reference, lengths = torch.tensor([-4.0, -6.0], dtype=torch.float64), torch.tensor([4.0, 2.0], dtype=torch.float64)
    zeros = torch.zeros(2, dtype=torch.float64)
    found = clipped_objective(new, new.detach(), reference, zeros, lengths, (0.2, 0.2), 0.5)
    assert float(found.kl) == pytest.approx(0.125)
    assert float(found.total.detach()) == pytest.approx(0.0625)
    found.total.backward()
    assert new.grad.tolist() == pytest.approx([0.5 * 0.5 / 4, 0.0])
