"""What a recipe would train, without training it: its size, the memory its weights need, and one slot of a step.

What flows through: Recipe -> the objective -> lines for a person. Networks that are too large for a look are only counted, on
the meta device; others are built, and the loss of one slot is computed: so missing data shows before a cluster is asked for.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterable

import torch
from torch import nn

from llada_uni.training.loop.ranks import Processes
from llada_uni.training.loop.stage import Objective
from llada_uni.training.recipes.recipe import Recipe

LARGEST = 10**9  # parameters of a network that is built for a look
# float32: weight, gradient and AdamW's two averages; a frozen weight is a weight alone.
_TRAINED_BYTES, _FROZEN_BYTES = 16, 4


def overview(recipe: Recipe) -> str:
    """Several lines: parameters, memory of the weights, what one slot holds and how many slots a step has."""
    if hasattr(recipe.options, "build_model"):
        with torch.device("meta"):
            model = recipe.options.build_model()
        parameters = _count(model.parameters())
        if parameters > LARGEST:
            gigabytes = parameters * _TRAINED_BYTES / 1e9
            size = f"parameters: {parameters:,}; {gigabytes:.0f} GB with gradients and optimizer if all are trained (float32)"
            return f"{size}\n{_step_line(recipe)}"
    objective = recipe.options.build(Processes(), recipe.seed)
    if any(weight.is_meta for weight in objective.parameters()):
        return "\n".join([*_size_lines(objective), _step_line(recipe)])
    return "\n".join([*_size_lines(objective), _step_line(recipe), *_slot_lines(objective, recipe.seed)])


def _size_lines(model: nn.Module) -> list[str]:
    trained = _count(weight for weight in model.parameters() if weight.requires_grad)
    frozen = _count(weight for weight in model.parameters() if not weight.requires_grad)
    gigabytes = (trained * _TRAINED_BYTES + frozen * _FROZEN_BYTES) / 1e9
    return [
        f"parameters: {trained:,} trained, {frozen:,} frozen",
        f"memory for weights, gradients and optimizer: {gigabytes:.2f} GB over all processes when sharded (float32)",
    ]


def _count(weights: Iterable[nn.Parameter]) -> int:
    return sum(weight.numel() for weight in weights)


def _step_line(recipe: Recipe) -> str:
    loop = recipe.loop
    return f"a step: {loop.micro_batches} slots, shared out over the processes; {loop.steps} steps in all"


def _slot_lines(objective: Objective, seed: int) -> list[str]:
    torch.manual_seed(seed)
    began = time.perf_counter()
    loss = objective.loss(0, 0, random.Random(seed))
    seconds = time.perf_counter() - began
    tensors = [f"{name} {list(tensor.shape)}" for name, tensor in objective.last_batch().items()]
    shown = f" ({', '.join(tensors)})" if tensors else ""
    return [f"one slot{shown}: loss {loss.total.item() / loss.weight:.4f}, forward pass {seconds:.2f} s here"]
