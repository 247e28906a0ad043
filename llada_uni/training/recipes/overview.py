"""What a recipe would train, without training it: its size, the memory its weights need, and one micro-batch.

Recipe -> the stage -> lines for a person. Networks that are too large for a look are only counted, on
the meta device; others are built, and the loss of one micro-batch is computed: so missing data shows before a cluster is
asked for.
"""

from __future__ import annotations

import time
from collections.abc import Iterable

import torch
from torch import nn

from llada_uni.training.loop.prefetch import draw, named_tensors
from llada_uni.training.loop.ranks import Processes
from llada_uni.training.loop.stage import Stage
from llada_uni.training.recipes.recipe import Recipe

LARGEST = 10**9  # parameters of a network that is built for a look
# float32: weight, gradient and AdamW's two averages; a frozen weight is a weight alone.
_TRAINED_BYTES, _FROZEN_BYTES = 16, 4


def overview(recipe: Recipe) -> str:
    """Several lines: parameters, memory of the weights, what one micro-batch holds and how many a step has."""
    if hasattr(recipe.options, "build_model"):
        with torch.device("meta"):
            model = recipe.options.build_model()
        parameters = _count(model.parameters())
        if parameters > LARGEST:
            gigabytes = parameters * _TRAINED_BYTES / 1e9
            size = f"parameters: {parameters:,}; {gigabytes:.0f} GB with gradients and optimizer if all are trained (float32)"
            return f"{size}\n{_step_line(recipe)}"
    stage = recipe.options.build(Processes(), recipe.seed)
    if any(weight.is_meta for weight in stage.parameters()):
        return "\n".join([*_size_lines(stage), _step_line(recipe)])
    return "\n".join([*_size_lines(stage), _step_line(recipe), *_batch_lines(stage, recipe)])


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
    return f"a step: {loop.micro_batches} micro-batches, shared out over the processes; {loop.steps} steps in all"


def _batch_lines(stage: Stage, recipe: Recipe) -> list[str]:
    stage.begin(recipe.loop.micro_batches)
    began = time.perf_counter()
    drawn = draw(stage, recipe.seed, 0, 0)
    waited = time.perf_counter() - began
    drawn.seed_global()
    loss = stage.loss(drawn.batch)
    seconds = time.perf_counter() - began - waited
    tensors = ", ".join(f"{name} {list(tensor.shape)}" for name, tensor in named_tensors(drawn.batch).items())
    pace = f"drawn in {waited:.2f} s, forward pass {seconds:.2f} s here"
    return [f"one micro-batch ({tensors}): loss {loss.total.item() / loss.weight:.4f}, {pace}"]
