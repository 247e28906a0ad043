"""Which process this is among those that train together, and what they tell one another.

One process needs no setting up: `Processes()` is rank 0 of 1. Several are set up by `parallel.setup_processes`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from llada_uni.errors import UserError

T = TypeVar("T")


@dataclass(frozen=True)
class Processes:
    """rank of size processes; device: where this one computes."""

    rank: int = 0
    size: int = 1
    device: str = "cpu"

    @property
    def is_main(self) -> bool:
        """Whether this process writes logs and exports."""
        return self.rank == 0

    @property
    def torch_device(self) -> torch.device:
        return torch.device(self.device)

    def micro_batches(self, count: int) -> list[int]:
        """Those of a step's `count` micro-batches that this process works on; UserError unless all get as many."""
        if count % self.size:
            raise UserError(f"micro_batches is {count}; with {self.size} processes it must be a multiple of {self.size}")
        return list(range(self.rank, count, self.size))

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum of `tensor` over all processes, in place (the same tensor is returned)."""
        if self.size > 1:
            dist.all_reduce(tensor)
        return tensor

    def gather(self, value: T) -> list[T]:
        """The `value` of every process, in the order of ranks, on every process; for small plain Python values."""
        if self.size == 1:
            return [value]
        values: list[T] = [value] * self.size
        dist.all_gather_object(values, value)
        return values

    def any(self, flags: list[bool]) -> list[bool]:
        """For every flag, whether it is set on any process."""
        if self.size == 1:
            return flags
        return [count > 0 for count in self.sum(torch.tensor(flags, dtype=torch.int32, device=self.device)).tolist()]

    def barrier(self) -> None:
        """Waits until every process is here."""
        if self.size > 1:
            dist.barrier()
