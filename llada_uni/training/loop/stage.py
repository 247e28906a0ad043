"""What a training stage has to be for the one loop (loop.py): a module with a loss, and how its result is exported.

A step's global batch consists of `micro_batches` slots; the loop calls `loss(step, slot, rng)` for the slots of this
process and adds up the gradients. Sums, not means, are returned: the loop divides by the weight of the whole global batch,
so the same batch gives the same gradient however it is cut into slots and processes.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor, nn

from llada_uni.training.loop.ranks import Processes


class Loss(NamedTuple):
    """total: summed weighted loss of one slot (scalar, with gradient); weight: what all totals are divided by.

    numbers: name -> (sum, count), logged as sum over count of the whole global batch; with count 0 an amount (tokens,
    pictures), logged per second. Scalar tensors are allowed: they are not read before a row of the log is due.
    """

    total: Tensor
    weight: float
    numbers: dict[str, tuple[float, float]]


class Objective(nn.Module):
    """Parameters that want gradients are trained; `state_dict()` is what a checkpoint keeps.

    Before each call of `loss` the loop seeds `rng` and torch's global generator from (seed, step, slot): data and noise must
    come from these, or from a reader whose per-slot state is given by `slot_state`.
    """

    def __init__(self, processes: Processes | None = None) -> None:
        super().__init__()
        self.processes = processes or Processes()

    def loss(self, step: int, slot: int, rng: random.Random) -> Loss:
        """The summed loss of slot `slot` of step `step`."""
        raise NotImplementedError

    def after_step(self, step: int) -> dict[str, float]:
        """Runs behind each optimizer step (balancing, moving averages); returns numbers for the log."""
        return {}

    def evaluate(self, step: int) -> dict[str, float]:
        """Numbers on held-out data, asked for every `evaluate_every` steps; same on every process."""
        return {}

    def slot_state(self, slot: int) -> dict[str, Any]:
        """Where the reader of a slot stands, as plain JSON values; {} for data drawn from the generators alone."""
        return {}

    def load_slot_state(self, slot: int, state: dict[str, Any]) -> None:
        """Puts the reader of a slot back to where `slot_state` was taken."""

    def last_batch(self) -> dict[str, Tensor]:
        """The tensors of the last `loss` call, kept for a report when the loss is not finite."""
        return {}

    def shard_units(self) -> list[nn.Module]:
        """Modules that are sharded (and, if asked, re-computed in the backward pass) one by one: the layers."""
        return []

    def materialise(self) -> None:
        """Fills weights that were built on the meta device; they have memory (each process its own part) by then.

        Called once, and only for such an objective. `sharded_load.load_sharded_backbone` is the usual way.
        """

    def fingerprint(self) -> dict[str, Any]:
        """Plain JSON values that must agree between a checkpoint and the run that resumes it: sizes, vocabulary."""
        return {}

    def save(self, folder: Path, state: dict[str, Tensor]) -> None:
        """Exports the trained part into `folder`, in the layout of a model directory.

        state: the full (unsharded) tensors by the names of `state_dict()`, averaged (EMA) where the loop keeps averages.
        Called on the main process only.
        """
        raise NotImplementedError
