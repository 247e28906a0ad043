"""The optimizer over named weights; its state, one entry per weight from the start, can be saved and sharded again."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from llada_uni.training.loop.ema import local_part
from llada_uni.training.loop.muon import Muon, is_hidden
from llada_uni.training.loop.options import LoopOptions


def make_optimizer(weights: Mapping[str, nn.Parameter], options: LoopOptions) -> torch.optim.AdamW:
    """AdamW or Muon; only matrices (tensors of two and more axes) decay."""
    muon = options.optimizer == "muon"
    hidden = [weight for name, weight in weights.items() if muon and is_hidden(name, weight)]
    rest = [weight for name, weight in weights.items() if not (muon and is_hidden(name, weight))]
    groups = [
        {"params": hidden, "weight_decay": options.weight_decay, "muon": True},
        {"params": [weight for weight in rest if weight.dim() >= 2], "weight_decay": options.weight_decay, "muon": False},
        {"params": [weight for weight in rest if weight.dim() < 2], "weight_decay": 0.0, "muon": False},
    ]
    low = options.precision == "bfloat16"
    groups = [{**group, "scale": options.muon_scale, "low": low} for group in groups if group["params"]]
    kind = Muon if muon else torch.optim.AdamW
    optimizer = kind(groups, lr=options.lr, betas=options.betas, eps=options.eps, fused=True)
    optimizer_state(optimizer, weights)
    return optimizer


def optimizer_state(optimizer: torch.optim.AdamW, weights: Mapping[str, nn.Parameter]) -> dict[str, dict[str, Tensor]]:
    """AdamW's own tensors by the names of the weights (sharing memory); zeros, as AdamW begins, where it has none yet."""
    for weight in weights.values():
        if weight not in optimizer.state:
            optimizer.state[weight] = {
                "step": torch.zeros((), device=weight.device),
                "exp_avg": torch.zeros_like(weight, requires_grad=False),
                "exp_avg_sq": torch.zeros_like(weight, requires_grad=False),
            }
    return {name: dict(optimizer.state[weight]) for name, weight in weights.items()}


def gradients(weights: Mapping[str, nn.Parameter]) -> list[Tensor]:
    """Every weight's gradient; zeros for a weight that no loss of this step used, so that processes agree."""
    found = []
    for weight in weights.values():
        if weight.grad is None:
            weight.grad = torch.zeros_like(weight)
        found.append(weight.grad)
    return found


def total_norm(grads: list[Tensor]) -> Tensor:
    """The norm of the whole gradient, scalar, the same on every process."""
    norm = nn.utils.get_total_norm(grads)
    return norm.full_tensor() if isinstance(norm, DTensor) else norm


def scale_gradients(grads: list[Tensor], factor: float) -> None:
    """Multiplies all gradients by `factor`, in place."""
    torch._foreach_mul_([local_part(grad) for grad in grads], factor)
