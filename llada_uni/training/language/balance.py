"""Expert balancing without an auxiliary loss: a bias an expert, moved against the measured load.

The choices that routers count in a step -> summed over all processes -> a step of each bias, and metrics
for the log: how even the load is, and how far routers have drifted from where they started.
arXiv:2604.20796 prints b_i += u (F_i - Q_i) / rms_j(F_j - Q_j) with F the share of the load and Q = 1/E; to push load
away from crowded experts the step has to be negative, so u is subtracted here. The bias takes part in the choice of
experts only, never in their weights.

R routers (one a mixture-of-experts layer), E experts, D width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from llada_uni.backbone.moe import Router
from llada_uni.training.loop.ranks import Processes


@torch.no_grad()
def update_bias(bias: Tensor, load: Tensor, rate: float) -> None:
    """Moves `bias` [E] in place; `load` [E] counts how often each expert was chosen since the last call."""
    excess = load / load.sum().clamp(min=1) - 1.0 / len(load)
    rms = excess.square().mean().sqrt()
    moved = (load.sum() > 0) & (rms > 0)
    bias.sub_(torch.where(moved, rate * excess / rms.clamp(min=1e-12), 0.0))
    # Only differences matter to the choice; a zero mean keeps the numbers small.
    bias.sub_(bias.mean())


def max_over_mean(load: Tensor) -> Tensor:
    """Largest expert load over the mean load, for load [..., E] -> [...]; 1 is perfect balance."""
    return load.amax(-1) / load.mean(-1).clamp(min=1e-9)


class Balance(nn.Module):
    """Keeps the routers inside `model` balanced, and tells how they do. rate: step of the bias (0: only measured).

    `start` [R, E, D] holds the router weights at the start of the run, so that a resumed run still measures its drift.
    """

    start: Tensor

    def __init__(self, model: nn.Module, rate: float, processes: Processes) -> None:
        super().__init__()
        self.routers = tuple(module for module in model.modules() if isinstance(module, Router))  # not owned by this module
        self.rate, self.processes = rate, processes
        self.register_buffer("start", self._weights())

    def remember(self) -> None:
        """Takes the router weights as they are for the start."""
        self.start.copy_(self._weights())

    @torch.no_grad()
    def after_step(self) -> dict[str, Tensor]:
        """Moves every bias by the load of the step, and starts to count again. Returns metrics for the log, as scalars:

        load_max (largest load over the mean, in the worst layer), load_mean (the same, mean over layers), dead (share of
        experts that nobody chose), bias (root mean square of all biases), router_drift (1 - cosine between the router weights
        now and at the start, mean over layers).
        """
        if not self.routers:
            return {}
        load = self.processes.sum(torch.stack([router.load for router in self.routers]))  # [R, E]
        for router, counts in zip(self.routers, load, strict=True):
            if self.rate:
                update_bias(router.expert_bias, counts, self.rate)
            router.reset_load()
        bias = torch.stack([router.expert_bias for router in self.routers])
        uneven = max_over_mean(load)
        return {
            "load_max": uneven.max(),
            "load_mean": uneven.mean(),
            "dead": (load == 0).float().mean(),
            "bias": bias.square().mean().sqrt(),
            "router_drift": 1 - F.cosine_similarity(self._weights().flatten(1), self.start.flatten(1)).mean(),
        }

    @torch.no_grad()
    def _weights(self) -> Tensor:
        """All router weights [R, E, D], whole also where they are sharded."""
        if not self.routers:
            return torch.empty(0, 0, 0)
        weights = [router.weight.detach() for router in self.routers]
        return torch.stack([w.full_tensor() if isinstance(w, DTensor) else w for w in weights]).float()
