"""Expert balancing without an auxiliary loss: a bias an expert, moved against the measured load.

arXiv:2604.20796 prints b_i += u (F_i - Q_i) / rms_j(F_j - Q_j) with F the share of the load and Q = 1/E; to push load
away from crowded experts the step has to be negative, so u is subtracted here. The bias takes part in the choice of
experts only, never in their weights. E experts.
"""

from __future__ import annotations

import torch
from torch import Tensor


@torch.no_grad()
def update_bias(bias: Tensor, load: Tensor, rate: float) -> None:
    """Moves `bias` [E] in place; `load` [E] counts how often each expert was chosen since the last call."""
    total = load.sum()
    if total <= 0:
        return
    excess = load / total - 1.0 / len(load)
    rms = excess.square().mean().sqrt()
    if rms > 0:
        bias.sub_(rate * excess / rms)
    # Only differences matter to the choice; a zero mean keeps the numbers small.
    bias.sub_(bias.mean())


def max_over_mean(load: Tensor) -> float:
    """Largest expert load over the mean load; 1 is perfect balance."""
    return float(load.max() / load.mean().clamp(min=1e-9))
