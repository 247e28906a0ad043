"""Muon for the hidden matrices of a network, AdamW for all else, in one optimizer with AdamW's state.

A matrix's gradient -> momentum -> its nearest orthogonal matrix, by five Newton-Schulz iterations -> the
update, scaled to the size that AdamW's would have, so that both share one learning rate. Every direction of a matrix moves
by the same amount: what is seen rarely is learned beside what is seen always. torch.optim.Muon takes no stacked experts, and no
other weights beside the matrices.
Source: K. Jordan et al., Muon (2024); the scale from arXiv:2502.16982, section 2.2.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from llada_uni.training.loop.ema import local_part
from llada_uni.training.loop.sharded_load import own_rows

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
ITERATIONS = 5
ADAM_ONLY = ("embed", "lm_head", "gate.weight", "router")
"""Parts of the names of matrices that are tables or choose: AdamW's."""


def is_hidden(name: str, weight: nn.Parameter) -> bool:
    """Whether Muon takes a weight: a matrix inside the network, or a stack of them, one an expert."""
    return weight.dim() in (2, 3) and not any(part in name for part in ADAM_ONLY)


def orthogonalized(matrices: Tensor, low: bool = False) -> Tensor:
    """[N, R, C] -> the same with all singular values near 1 (0.7 to 1.2). A few at a time: they stay in the cache.

    low: computed in bfloat16, as Muon's author does; the result has the dtype of what is given.
    """
    return torch.cat([_orthogonalized(few, low) for few in matrices.split(4)])


def _orthogonalized(matrices: Tensor, low: bool) -> Tensor:
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.transpose(1, 2) if tall else matrices
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    if low:
        x = x.bfloat16()
    a, b, c = COEFFICIENTS
    for _ in range(ITERATIONS):
        gram = x @ x.transpose(1, 2)
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return (x.transpose(1, 2) if tall else x).to(matrices.dtype)


def shared_out(matrices: Tensor, low: bool = False) -> Tensor:
    """`orthogonalized`, of which each of several processes that hold equal matrices works out its part: the same on all."""
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return orthogonalized(matrices, low)
    size, rank = dist.get_world_size(), dist.get_rank()
    part = -(-len(matrices) // size)
    mine = matrices.new_zeros(part, *matrices.shape[1:])
    own = matrices[rank * part : (rank + 1) * part]
    mine[: len(own)] = orthogonalized(own, low)
    found = matrices.new_empty(size * part, *matrices.shape[1:])
    dist.all_gather(list(found.split(part)), mine)
    return found[: len(matrices)]


class Muon(torch.optim.AdamW):
    """Takes AdamW's groups; those with "muon": True hold weights of which `is_hidden` speaks, "scale" is the root mean
    square of their updates, and "low" whether these are computed in bfloat16. It keeps its momentum where AdamW keeps its own,
    which must be there before the first step.
    """

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]  # there are no closures here
        """One step of all weights that have a gradient."""
        groups = self.param_groups
        self.param_groups = [group for group in groups if not group["muon"]]
        super().step(closure)
        self.param_groups = groups
        for group in groups:
            if group["muon"]:
                self._step_hidden(group)

    def _step_hidden(self, group: dict[str, Any]) -> None:
        beta, rate = group["betas"][0], group["lr"]
        alike: dict[torch.Size, list[nn.Parameter]] = defaultdict(list)
        for weight in group["params"]:
            alike[weight.shape[-2:]].append(weight)
        for shape, weights in alike.items():
            moved = []
            for weight in weights:
                momentum = self.state[weight]["exp_avg"]
                gradient = weight.grad
                assert gradient is not None  # every hidden weight takes part in every loss
                momentum.lerp_(gradient, 1 - beta)
                moved.append(gradient.lerp(momentum, beta))  # Nesterov's look ahead
            for weight, update in zip(weights, _orthogonal_parts(moved, group["low"]), strict=True):
                own = local_part(weight)
                step = update.view_as(own).mul_(group["scale"] * max(shape) ** 0.5)
                own.mul_(1 - rate * group["weight_decay"]).add_(step, alpha=-rate)
                self.state[weight]["step"] += 1


def _orthogonal_parts(moved: list[Tensor], low: bool) -> list[Tensor]:
    """For each tensor (of matrices of one shape) what this process holds of its orthogonal one.

    Of experts that are shared out by FSDP a process holds whole matrices; a matrix cut into rows is put together first, for
    this step alone.
    """
    found: dict[int, Tensor] = {}
    cut_experts = [i for i, tensor in enumerate(moved) if isinstance(tensor, DTensor) and tensor.dim() == 3]
    for i in cut_experts:
        own = local_part(moved[i])
        found[i] = orthogonalized(own, low) if own.numel() else own
    rest = [i for i in range(len(moved)) if i not in found]
    if rest:
        shape = moved[rest[0]].shape[-2:]
        stacked = [_whole(moved[i]).reshape(-1, *shape) for i in rest]
        for i, update in zip(rest, shared_out(torch.cat(stacked), low).split([len(m) for m in stacked]), strict=True):
            found[i] = update.view(moved[i].shape)[slice(*own_rows(moved[i]))]
    return [found[i] for i in range(len(moved))]


def _whole(tensor: Tensor) -> Tensor:
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
