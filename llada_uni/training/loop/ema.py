"""A moving average of the trained weights (EMA): smoother than the last step's, and what a run exports.

After every step: average += (1 - d) * (weight - average), with d = min(decay, (1 + step) / (10 + step)), so that a young
average forgets its start quickly. Works on sharded weights too: every process averages its own part.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor


def local_part(tensor: Tensor) -> Tensor:
    """What this process holds of a tensor: its part where it is sharded (sharing memory), else the tensor itself."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


class Averages:
    """Averages of `weights` (name -> tensor, sharded or not); with decay 0 there are none and every call does nothing.

    `values`: name -> average, of the same sharding as the weight; part of a checkpoint.
    """

    def __init__(self, weights: Mapping[str, Tensor], decay: float) -> None:
        self.decay = decay
        self.weights = dict(weights) if decay > 0 else {}
        self.values = {name: weight.detach().clone() for name, weight in self.weights.items()}

    def _pairs(self) -> tuple[list[Tensor], list[Tensor]]:
        return [local_part(v) for v in self.values.values()], [local_part(w.detach()) for w in self.weights.values()]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Takes in the weights after optimizer step `step` (from 0)."""
        if not self.values:
            return
        averages, weights = self._pairs()
        torch._foreach_lerp_(averages, weights, 1 - min(self.decay, (1 + step) / (10 + step)))

    @contextmanager
    @torch.no_grad()
    def applied(self) -> Iterator[None]:
        """Inside the block the weights have their averaged values."""
        if not self.values:
            yield
            return
        averages, weights = self._pairs()
        kept = [weight.clone() for weight in weights]
        torch._foreach_copy_(weights, averages)
        try:
            yield
        finally:
            torch._foreach_copy_(weights, kept)
