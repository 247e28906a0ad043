"""Muon for the hidden matrices of a network, AdamW for all else, in one optimizer with AdamW's state.

What flows through: a matrix's gradient -> momentum -> its nearest orthogonal matrix, by five Newton-Schulz iterations -> the
update, scaled to the size that AdamW's would have, so that both share one learning rate. Every direction of a matrix moves
by the same amount: what is seen rarely is learnt beside what is seen always. torch.optim.Muon takes no stacked experts, and no
other weights beside the matrices.
Source: K. Jordan et al., Muon (2024); the scale from arXiv:2502.16982, section 2.2.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from llada_uni.errors import UserError

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
ITERATIONS = 5
SCALE = 0.2
"""Root mean square of AdamW's updates, about."""
ADAM_ONLY = ("embed", "lm_head", "gate.weight", "router")
"""Parts of the names of matrices that are tables or choose: AdamW's."""


def is_hidden(name: str, weight: nn.Parameter) -> bool:
    """Whether Muon takes a weight: a matrix inside the network, or a stack of them, one an expert."""
    return weight.dim() in (2, 3) and not any(part in name for part in ADAM_ONLY)


def orthogonalised(matrices: Tensor) -> Tensor:
    """[N, R, C] -> the same with all singular values near 1 (0.7 to 1.2)."""
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.transpose(1, 2) if tall else matrices
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    a, b, c = COEFFICIENTS
    for _ in range(ITERATIONS):
        gram = x @ x.transpose(1, 2)
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.transpose(1, 2) if tall else x


class Muon(torch.optim.AdamW):
    """weights: by name; those of which `is_hidden` speaks are in a group with "muon": True. UserError for weights in parts."""

    def __init__(
        self, weights: Mapping[str, nn.Parameter], lr: float, betas: tuple[float, float], eps: float, decay: float
    ) -> None:
        if any(isinstance(weight, DTensor) for weight in weights.values()):
            raise UserError("muon needs whole matrices: set parallel.shard to false, or loop.optimizer to adamw")
        hidden = [w for name, w in weights.items() if is_hidden(name, w)]
        rest = [w for name, w in weights.items() if not is_hidden(name, w)]
        groups = [
            {"params": hidden, "weight_decay": decay, "muon": True},
            {"params": [w for w in rest if w.dim() >= 2], "weight_decay": decay, "muon": False},
            {"params": [w for w in rest if w.dim() < 2], "weight_decay": 0.0, "muon": False},
        ]
        super().__init__([group for group in groups if group["params"]], lr=lr, betas=betas, eps=eps, fused=True)

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        """One step of all weights that have a gradient."""
        groups = self.param_groups
        self.param_groups = [group for group in groups if not group["muon"]]
        super().step(closure)
        self.param_groups = groups
        for group in groups:
            if group["muon"]:
                self._step_hidden(group)

    def _step_hidden(self, group: dict) -> None:
        beta, rate = group["betas"][0], group["lr"]
        alike: dict[torch.Size, list[nn.Parameter]] = defaultdict(list)
        for weight in group["params"]:
            alike[weight.shape[-2:]].append(weight)
        for shape, weights in alike.items():
            moved = []
            for weight in weights:
                momentum = self.state[weight]["exp_avg"]
                momentum.lerp_(weight.grad, 1 - beta)
                moved.append(weight.grad.lerp(momentum, beta).view(-1, *shape))  # Nesterov's look ahead
            updates = orthogonalised(torch.cat(moved)).mul_(SCALE * max(shape) ** 0.5)
            for weight, update in zip(weights, updates.split([len(m) for m in moved]), strict=True):
                weight.mul_(1 - rate * group["weight_decay"]).add_(update.view_as(weight), alpha=-rate)
                self.state[weight]["step"] += 1
