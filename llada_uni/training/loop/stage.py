"""What a training stage is to the one loop (trainer.py): a module with `batch` and `loss`, and how its result is exported.

A step's global batch consists of `micro_batches` micro-batches. The loop calls `batch(step, micro_batch, generators)` for
those of this process, in a thread ahead of time (prefetch.py), moves the tensors to the device, and calls `loss(batch)`. Sums,
not means, are returned: the loop divides by the weight of the whole global batch, so the same batch gives the same gradient
however it is cut into micro-batches and processes.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from llada_uni.training.loop.ranks import Processes


class Generators(NamedTuple):
    """The randomness of one micro-batch, for `batch` alone: Python's and torch's (on the CPU), seeded alike."""

    python: random.Random
    torch: torch.Generator


class Loss(NamedTuple):
    """total: summed weighted loss of one micro-batch (scalar, with gradient); weight: what all totals are divided by.

    metrics: name -> (sum, count), logged as sum over count of the whole global batch; with count 0 an amount (tokens,
    images), logged per second. Scalar tensors are allowed: they are not read before a row of the log is due.
    """

    total: Tensor
    weight: float
    metrics: Mapping[str, tuple[float | Tensor, float | Tensor]]


class Stage(nn.Module):
    """Parameters that want gradients are trained; `state_dict()` is what a checkpoint keeps."""

    def __init__(self, processes: Processes | None = None) -> None:
        super().__init__()
        self.processes = processes or Processes()

    def begin(self, micro_batches: int) -> None:
        """Runs once on every process before the first batch, when the weights are those that training starts or goes on from.

        micro_batches: of a step, over all processes. Here data are prepared and opened, because `batch` must not talk to other
        processes.
        """

    def batch(self, step: int, micro_batch: int, generators: Generators) -> Any:
        """The data and the noise of one micro-batch, on the CPU: tensors in a dataclass, a tuple or a dict.

        It runs in a thread beside `loss`: it reads no weights, and draws from `generators` (which depend on the seed, the step
        and the micro-batch alone) or from a reader whose position is `reader_state`; never from torch's global generator.
        """
        raise NotImplementedError

    def loss(self, batch: Any) -> Loss:
        """The summed loss of what `batch` gave, moved to the device. Noise that it draws itself comes from torch's global
        generator, which goes on where that of `batch` stopped."""
        raise NotImplementedError

    def after_step(self, step: int) -> dict[str, float]:
        """Runs behind each optimizer step (balancing, moving averages); returns metrics for the log."""
        return {}

    def evaluate(self, step: int) -> dict[str, float]:
        """Metrics on held-out data, asked for every `evaluate_every` steps; same on every process. "loss": what training
        lowers, on the same held-out data and noise each time."""
        return {}

    def operations(self, batch: Any) -> float | None:
        """Floating-point operations that a micro-batch takes, forward and backward; None: those of the first are counted."""
        return None

    def pictures(self, step: int) -> dict[str, np.ndarray]:
        """Sheets of images uint8 [H, W, 3] by name (reconstructions, samples), asked for every `samples_every` steps, on every
        process (weights may be sharded); {} where there are none."""
        return {}

    def why_nothing(self) -> str:
        """Why no loss of the last step had a weight, for the log: such a step leaves the weights as they are."""
        return "its batch holds nothing to learn"

    def kept_state(self, micro_batch: int) -> Any:
        """What a micro-batch keeps from step to step beside the weights (answers that several steps learn from), as plain JSON
        values; None for nothing."""
        return None

    def load_kept_state(self, micro_batch: int, state: Any) -> None:
        """Puts back what `kept_state` gave."""

    def reader_state(self, micro_batch: int) -> dict[str, Any]:
        """Where the reader of a micro-batch stands, as plain JSON values; {} for data drawn from the generators alone."""
        return {}

    def load_reader_state(self, micro_batch: int, state: dict[str, Any]) -> None:
        """Puts the reader of a micro-batch back to where `reader_state` was taken."""

    def share_again(self, states: Mapping[int, dict[str, Any]], micro_batches: int) -> dict[int, dict[str, Any]]:
        """Readers' states for another number of micro-batches or other data, going on about where `states` were."""
        return {micro_batch: {} for micro_batch in range(micro_batches)}

    def left_out(self) -> list[str]:
        """A line for every record or image that could not be used and was left out, so far, by this process."""
        return []

    def shard_units(self) -> list[nn.Module]:
        """Modules that are sharded (and, if asked, re-computed in the backward pass) one by one: the layers."""
        return []

    def compile_units(self) -> list[nn.Module]:
        """Modules that `loop.compile` compiles one by one; none where more than training runs through them."""
        return self.shard_units()

    def materialize(self) -> None:
        """Fills weights that were built on the meta device; they have memory (each process its own part) by then.

        Called once, and only for such a stage. `sharded_load.load_sharded_backbone` is the usual way.
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
