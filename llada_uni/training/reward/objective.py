"""Advantages of a group, and the clipped objective of policy optimization, as pure functions.

rewards of the answers to one prompt -> advantages (mean of the group taken off, not divided by the deviation: arXiv:2503.20783)
rho = exp((L_new - L_old) / length), the ratio normalized by length (ESPO, arXiv:2512.03759)
loss = - mean over answers of min(rho A, clip(rho, 1 - e_low, 1 + e_high) A) + beta k2, k2 = (log ratio to the reference)^2 / 2

A answers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

LARGEST_LOG_RATIO = 10.0


def advantages(rewards: Sequence[float]) -> list[float]:
    """How much better than its group each answer is."""
    mean = sum(rewards) / len(rewards)
    return [reward - mean for reward in rewards]


def most_telling(rewards: Sequence[float], count: int) -> list[int]:
    """Numbers, rising, of the `count` answers whose rewards differ most: the best and the worst ones (arXiv:2504.13818).

    Of all ways to take some from the top and the rest from the bottom, the one with the largest variance.
    """
    order = sorted(range(len(rewards)), key=lambda i: rewards[i])
    if count >= len(order):
        return sorted(order)
    ways = [[*order[:low], *order[len(order) - (count - low) :]] for low in range(1, count)]
    return sorted(max(ways, key=lambda way: _variance([rewards[i] for i in way])))


def _variance(values: Sequence[float]) -> float:
    return sum(gain * gain for gain in advantages(values))


class Objective(NamedTuple):
    """total: summed loss, with gradient; kl: summed k2 without beta; clipped: answers whose ratio was cut, both without."""

    total: Tensor
    kl: Tensor
    clipped: Tensor
    ratios: Tensor


def clipped_objective(
    new: Tensor,
    old: Tensor,
    reference: Tensor | None,
    advantage: Tensor,
    lengths: Tensor,
    clip: tuple[float, float],
    beta: float,
) -> Objective:
    """new [A] with gradient; old, reference, advantage, lengths [A]: log-likelihoods, advantages, tokens of each answer.

    reference None: no term for the distance to it. clip: how far the ratio counts, (below, above) 1.
    """
    log_ratio = ((new - old) / lengths).clamp(-LARGEST_LOG_RATIO, LARGEST_LOG_RATIO)
    ratio = log_ratio.exp()
    cut = ratio.clamp(1 - clip[0], 1 + clip[1])
    gain = torch.minimum(ratio * advantage, cut * advantage)
    total = -gain.sum()
    kl = total.new_zeros(())
    if reference is not None:
        away = ((new - reference) / lengths).clamp(-LARGEST_LOG_RATIO, LARGEST_LOG_RATIO)
        kl = 0.5 * away.square().sum()
        total = total + beta * kl
    clipped = (ratio.detach() * advantage > cut.detach() * advantage).sum()
    return Objective(total, kl.detach(), clipped, ratio.detach())


def preference_loss(better: Tensor, worse: Tensor, better_reference: Tensor, worse_reference: Tensor, beta: float) -> Tensor:
    """DPO (arXiv:2305.18290) on log-likelihoods of pairs, [A] each: losses [A] in nats."""
    return -F.logsigmoid(beta * ((better - better_reference) - (worse - worse_reference)))
