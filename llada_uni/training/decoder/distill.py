"""Stage `distill`: consistency distillation of the base decoder into the turbo decoder of few steps (arXiv:2604.20796).

u(x_t, t) is the average velocity from x_t to the data end of its path: x_1 = x_t + (1 - t) u. The end is the same wherever on
the path one stands, so its derivative along the path is zero: 0 = v_t - u + (1 - t) du/dt. This is the loss,
|v - v_t|^2 + |u - v_t - (1 - t) du/dt|^2, with du/dt without gradient, from a central difference along (v_t, 1). Or the end is
set equal to that of a point one step of v_t ahead ("step"): coarser, but no error of u grows as a target of itself.
v_t is the velocity of the frozen base decoder, as its sampler uses it (guided) or plain, or that of the data, x1 - x0.
Time runs from noise (0) to data (1). B pictures, C latent channels, one frame, H x W latents.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable
from dataclasses import field
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from diffusers.models.transformers.transformer_z_image import ZImageTransformer2DModel
from pydantic import Field
from torch import Tensor, nn

from llada_uni.decoder.decode import DEFAULT_STEPS
from llada_uni.decoder.sampling import base_times, limited_guidance, turbo_sample
from llada_uni.decoder.transformer import Context, context_of, head_of, hidden, output, to_dtype_of, velocity
from llada_uni.files.model_dir import TURBO
from llada_uni.options import AtLeastOne, options
from llada_uni.training.decoder.decoder_model import (
    Conditioned,
    DecoderSizes,
    part_of,
    save_transformer_state,
    transformer_layers,
)
from llada_uni.training.decoder.latents import LatentOptions, Latents
from llada_uni.training.decoder.shown import held_out_sheet
from llada_uni.training.decoder.stage import FlowBatch, FlowTimes, beside, mixed, open_latents, squared_error
from llada_uni.training.loop.ema import local_part
from llada_uni.training.loop.ranks import Processes
from llada_uni.training.loop.stage import Generators, Loss, Stage

_SMALLEST = 1e-4  # time left that the step of the difference goes by at least: float32 tells times near 1 apart by 6e-8
_WALK, _WALKERS = 24, 8  # steps and pictures of the teacher's walks that `evaluate` compares with


@options
class DistillOptions:
    """latents: the prepared pictures; base: the run or model directory of the base decoder, of these `sizes`; batch: pictures
    a micro-batch; low_memory: with sharded weights, each process reads its own part only.

    velocity: v_t is the base decoder's, "guided" with `guidance` as its sampler uses it or "plain", or that of the "data".
    rule: what u is to be: "derivative", v_t + (1 - t) du/dt (the report's), or "step", the way to the end that u itself sees
    one step of v_t ahead.
    epsilon: half the step of the difference, or of the rule "step", as a part of the time left, 1 - t. Errors of u enter the
    derivative's target 1 / (2 epsilon) times, at every t alike: with much less than 0.1 training diverges, because the waves
    of the time embedding (their period is 2 pi / t_scale = 0.006) grow as targets of themselves; with 0.1 u drifts near the
    noise in long runs. They enter the step's target 1 - 2 epsilon times, so they fade (docs/log.md).
    """

    latents: LatentOptions
    base: str
    sizes: DecoderSizes = field(default_factory=DecoderSizes)
    low_memory: bool = False
    clean_only: bool = False
    batch: AtLeastOne = 10
    velocity: Literal["guided", "plain", "data"] = "guided"
    rule: Literal["derivative", "step"] = "derivative"
    guidance: float = 1.0
    epsilon: Annotated[float, Field(gt=0, lt=0.25)] = 0.1
    times: FlowTimes = field(default_factory=FlowTimes)

    def build_model(self) -> nn.Module:
        """Both networks with fresh weights; also on the meta device, for counting."""
        return DistillStage(self, Conditioned.from_sizes(self.sizes))

    def build(self, processes: Processes, seed: int) -> DistillStage:
        """The stage; the student starts as a copy of the base decoder."""
        return DistillStage(self, Conditioned.from_pretrained(self.base, self.sizes, self.low_memory), processes)


def path_derivative(u: Callable[[Tensor, Tensor], Tensor], x: Tensor, t: Tensor, v: Tensor, step: Tensor) -> Tensor:
    """du/dt at (x, t) along the direction (v, 1), by a central difference; its error is of second order in `step`.

    u(x [2B, ...], t [2B]) evaluates both ends at once; x, v [B, ...]; t and step [B], step up to 1/2. No gradient flows.
    Where t - step or t + step would leave 0..1, the difference is centered as much further inside, moved there along the path
    (an error of first order there).
    """
    with torch.no_grad():
        center = torch.maximum(torch.minimum(t, 1 - step), step)
        moved, reach = x + beside(center - t, x) * v, beside(step, x) * v
        ahead, behind = u(torch.cat([moved + reach, moved - reach]), torch.cat([center + step, center - step])).chunk(2)
        return (ahead - behind) / beside(2 * step, x)


def target_by_derivative(v: Tensor, derivative: Tensor, t: Tensor) -> Tensor:
    """v + (1 - t) du/dt, [B, ...]; t [B]."""
    return v + beside(1 - t, v) * derivative


def target_by_step(u: Callable[[Tensor, Tensor], Tensor], x: Tensor, t: Tensor, v: Tensor, part: float) -> Tensor:
    """The average velocity from (x, t) to the end that u sees `part` of the time left ahead: part v + (1 - part) u there.

    x, v [B, ...]; t [B]; its error is of second order in `part` (a step of Euler's along v). No gradient flows.
    """
    with torch.no_grad():
        step = part * (1 - t)
        return part * v + (1 - part) * u(x + beside(step, x) * v, t + step)


def consistency_losses(u: Tensor, v: Tensor, v_t: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """|u - target|^2 and |v - v_t|^2, the mean of each sample: [B, ...] -> [B], [B]."""
    return squared_error(u, target.detach()), squared_error(v, v_t.detach())


def copy_weights(source: nn.Module, target: nn.Module) -> None:
    """Into a module of the same kind, sharded likewise or not at all."""
    for value, place in zip(source.parameters(), target.parameters(), strict=True):
        local_part(place).copy_(local_part(value))


class TwoHeads(nn.Module):
    """Two output layers on one transformer: u in its own, and, while training, v in a copy of it (`auxiliary`).

    u is learned by the transformer's own output layer because it is the one that is kept: turbo predicts the data as
    x + (1 - t) * head, and the data end of the path through x is x + (1 - t) u by the definition of u, while x + (1 - t) v is
    the mean of all data that x may have come from, a blur at small t. v gives the layers below a steady, exact target beside
    u's, which is made with the network's own derivative; it is dropped at export (arXiv:2604.20796).
    """

    def __init__(self, transformer: ZImageTransformer2DModel) -> None:
        super().__init__()
        self.transformer = transformer
        self.auxiliary = copy.deepcopy(head_of(transformer))

    def forward(self, state: Tensor, t: Tensor, context: Context) -> tuple[Tensor, Tensor]:
        """(u, v), float32, each like `state` [B, C, 1, H, W]; t [B]."""
        model, size = self.transformer, state.shape[1:]
        found = hidden(model, to_dtype_of(model, state), t, context)
        return output(model, head_of(model), found, size).float(), output(model, self.auxiliary, found, size).float()


class DistillStage(Stage):
    """Teacher: the base decoder, frozen. Student: its copy with two heads. The code features are shared and frozen."""

    def __init__(self, options: DistillOptions, base: Conditioned, processes: Processes | None = None) -> None:
        super().__init__(processes)
        self.options = options
        self.student = TwoHeads(copy.deepcopy(base.transformer))
        self.teacher = base.requires_grad_(False)

    @cached_property
    def latents(self) -> Latents:
        """The pictures, made now where they are missing."""
        return open_latents(self.options.latents, self.teacher, self.processes, self.options.clean_only)

    def begin(self, micro_batches: int) -> None:
        _ = self.latents

    def batch(self, step: int, micro_batch: int, generators: Generators) -> FlowBatch:
        x1, codes = self.latents.draw(generators.python, self.options.batch)
        x0 = torch.randn(x1.shape, generator=generators.torch)
        t = self.options.times.draw(len(x1), generators.torch)
        return FlowBatch(x1, codes, x0, t)

    def loss(self, batch: FlowBatch) -> Loss:
        average, instant = (part.sum() for part in self._losses(batch))
        count = len(batch.latents)
        metrics = {"average": (average.item(), count), "instant": (instant.item(), count), "images": (count, 0.0)}
        return Loss(average + instant, count, metrics)

    def _losses(self, batch: FlowBatch) -> tuple[Tensor, Tensor]:
        """Those of u and of v, each [B]."""
        x1, codes, x0, t, _ = batch
        x = mixed(x1, x0, t)
        size = tuple(x.shape[1:])
        condition = self.teacher.condition(codes)
        v_t = x1 - x0 if self.options.velocity == "data" else self.teacher_velocity(x, t, self.teacher_context(condition, size))

        context = context_of(self.student.transformer, condition, size)
        u, v = self.student(x, t, context)
        return consistency_losses(u, v, v_t, self._target(x, t, v_t, context.detach()))

    def _target(self, x: Tensor, t: Tensor, v_t: Tensor, context: Context) -> Tensor:
        """What u is to be, by the student itself and without gradient: like x [B, C, 1, H, W]."""
        if self.options.rule == "step":
            return target_by_step(lambda x, t: self.student(x, t, context)[0], x, t, v_t, 2 * self.options.epsilon)
        both = context.repeat(2)
        step_of = self.options.epsilon * (1 - t).clamp_min(_SMALLEST)
        derivative = path_derivative(lambda x, t: self.student(x, t, both)[0], x, t, v_t, step_of)
        return target_by_derivative(v_t, derivative, t)

    @torch.no_grad()
    def teacher_context(self, condition: Tensor, size: tuple[int, ...]) -> Context:
        """The condition as the teacher's velocity takes it: with the zeros of the negative branch behind it, if guided."""
        if self.options.velocity == "guided":
            condition = torch.cat([condition, torch.zeros_like(condition)])
        return context_of(self.teacher.transformer, condition, size)

    @torch.no_grad()
    def teacher_velocity(self, x: Tensor, t: Tensor, context: Context) -> Tensor:
        """v_t of the base decoder, float32 like x [B, C, 1, H, W]."""
        model = self.teacher.transformer
        if self.options.velocity != "guided":
            return velocity(model, to_dtype_of(model, x), t, context).float()
        positive, negative = velocity(model, to_dtype_of(model, x.repeat(2, 1, 1, 1, 1)), t.repeat(2), context).chunk(2)
        return limited_guidance(positive, negative, self.options.guidance)

    @torch.no_grad()
    def evaluate(self, step: int) -> dict[str, float]:
        """How far the student's predictions of the data lie from the ends of the teacher's walks (root mean square), from the
        start of the walks and from their middle; on held-out codes. And the loss there, at fixed noise and spread times."""
        x1, codes = (tensor.to(self.processes.torch_device) for tensor in self.latents.held_out(_WALKERS))
        x = torch.randn(x1.shape, generator=torch.Generator().manual_seed(0)).to(x1)
        condition = self.teacher.condition(codes)
        context = self.teacher_context(condition, tuple(x.shape[1:]))
        points = []
        for now, following in itertools.pairwise(base_times(_WALK + 1)):
            points.append((x, torch.full((len(x),), now, device=x.device)))
            x = x + (following - now) * self.teacher_velocity(x, points[-1][1], context)
        own = context_of(self.student.transformer, condition, tuple(x.shape[1:]))
        metrics = {}
        for name, (start, t) in (("start", points[0]), ("middle", points[_WALK // 2])):
            end = start + beside(1 - t, start) * self.student(start, t, own)[0]
            metrics[f"end_from_{name}"] = (end - x).square().mean().sqrt().item()
        spread = (torch.arange(len(x1), device=x1.device) + 0.5) / len(x1)
        parts = self._losses(FlowBatch(x1, codes, points[0][0], spread))
        return {**metrics, "loss": sum(part.mean().item() for part in parts)}

    @torch.no_grad()
    def pictures(self, step: int) -> dict[str, np.ndarray]:
        """Held-out images above what the student draws from their codes in 8 steps."""

        def sample(noise: Tensor, codes: Tensor) -> Tensor:
            context = context_of(self.student.transformer, self.teacher.condition(codes), tuple(noise.shape[1:]))

            def velocity(state: Tensor, t: float) -> Tensor:
                return self.student(state.float(), torch.full((len(state),), t, device=state.device), context)[0]

            return turbo_sample(velocity, noise, DEFAULT_STEPS["turbo"], torch.Generator().manual_seed(0))

        return held_out_sheet(self.options.latents, self.latents, self.processes.torch_device, sample)

    def shard_units(self) -> list[nn.Module]:
        return [*transformer_layers(self.student.transformer), *self.teacher.layers()]

    @torch.no_grad()
    def materialize(self) -> None:
        self.teacher.fill(self.options.base)
        copy_weights(self.teacher.transformer, self.student.transformer)
        copy_weights(head_of(self.student.transformer), self.student.auxiliary)

    def fingerprint(self) -> dict[str, Any]:
        return {"stage": "distill", **self.teacher.sizes()}

    def save(self, folder: Path, state: dict[str, Tensor]) -> None:
        """Writes decoder-turbo/ alone: with the head for u, without the auxiliary one. The code features are the base's."""
        transformer = part_of(state, "student.transformer.")
        save_transformer_state(transformer, self.teacher.transformer.config, TURBO.path(folder))
