"""How fast a run is against what its machine can do: counted operations, the speed of a large product, memory.

The operations of the first micro-batch, forward and backward, as torch dispatches them -> operations per
second of a run -> `mfu`, their share of what one large matrix product reaches on the same device (model FLOPs utilization; its
paper, arXiv:2204.02311 appendix B, counts recomputing out, and so does this: the first pass alone is counted there).
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

_SIDES = {"cpu": 1024, "cuda": 8192}  # of the product that is timed
_ROUNDS = 3


class Operations(TorchDispatchMode):
    """Adds up the floating-point operations of products, convolutions and attention that run inside the context."""

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        count = flop_registry.get(func._overloadpacket)
        if count is not None:
            self.total += count(*args, **(kwargs or {}), out_val=out)
        return out


@contextmanager
def counted(wanted: bool) -> Iterator[Operations]:
    """A context that counts where `wanted`; else it does nothing."""
    operations = Operations()
    if wanted:
        with operations:
            yield operations
    else:
        yield operations


@cache
def product_speed(device: str, dtype: torch.dtype) -> float:
    """Operations per second of a large square matrix product on this device, with as many threads as torch has now."""
    side = _SIDES.get(device.partition(":")[0], 1024)
    a = torch.randn(side, side, device=device, dtype=dtype)
    best = float("inf")
    for _ in range(_ROUNDS):
        began = time.perf_counter()
        (a @ a).sum().item()  # .item() waits for a GPU
        best = min(best, time.perf_counter() - began)
    return 2 * side**3 / best


def memory_gb(device: torch.device) -> float:
    """The most memory this process has held so far, in 10^9 bytes: the GPU's where it works on one, else resident memory."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    status = Path("/proc/self/status")
    if status.is_file():
        for line in status.read_text(encoding="utf-8").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024 / 1e9
    return 0.0
