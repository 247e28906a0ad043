"""The two samplers of the decoder, as pure functions of a velocity.

Noise [B, ...] -> `steps` times a velocity at (state, time) -> data [B, ...]. Time runs
from noise (0) to data (1), the state along x_t = t * data + (1 - t) * noise, so the velocity is data - noise
(arXiv:2604.20796, decoder; released configuration). The state is float64 throughout (`state_dtype`); velocities may have any
dtype.

The time grid of the base sampler is diffusers' FlowMatchEulerDiscreteScheduler (its sigma is our 1 - t, its
shift ours). Its `step` is not used: it keeps the state in float32 only for the sum and hands it back in the
model's dtype, and its `stochastic_sampling`, otherwise our turbo rule, draws from torch's global generator
instead of one passed in.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import cast

import torch
from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler

from llada_uni.errors import UserError

Velocity = Callable[[torch.Tensor, float], torch.Tensor]
GuidedVelocity = Callable[[torch.Tensor, float], tuple[torch.Tensor, torch.Tensor]]
OnStep = Callable[[int, int], None]
NARROW = ("mps",)  # kinds of devices that have no float64


def base_times(steps: int, shift: float = 6.0) -> list[float]:
    """`steps` times from 0 to 1, t / (t + shift - shift * t) of a uniform t; so `steps` - 1 evaluations.

    Raises UserError below 2 steps.
    """
    if steps < 2:
        raise UserError(f"the base decoder takes at least 2 steps, not {steps}")
    scheduler = FlowMatchEulerDiscreteScheduler(shift=shift)
    scheduler.set_timesteps(sigmas=[1 - i / (steps - 1) for i in range(steps - 1)])
    return [1 - sigma for sigma in scheduler.sigmas.tolist()]  # in float64, which a device may not have


def limited_guidance(positive: torch.Tensor, negative: torch.Tensor, scale: float) -> torch.Tensor:
    """positive + scale * (positive - negative), scaled down per sample to the norm of `positive` where
    longer. [B, ...]"""
    positive, negative = positive.float(), negative.float()
    guided = positive + scale * (positive - negative)
    over_sample = tuple(range(1, positive.dim()))
    norm, most = (torch.linalg.vector_norm(v, dim=over_sample, keepdim=True) for v in (guided, positive))
    return torch.where(norm > most, guided * (most / norm), guided)


def state_dtype(device: torch.device) -> torch.dtype:
    """What a sampler's state is kept in: float64, or float32 on a device that has no other."""
    return torch.float32 if device.type in NARROW else torch.float64


def base_sample(
    velocity_fn: Velocity | GuidedVelocity,
    noise: torch.Tensor,
    steps: int = 50,
    shift: float = 6.0,
    guidance: float = 1.0,
    on_step: OnStep | None = None,
) -> torch.Tensor:
    """Euler steps on the shifted time grid; returns the data [B, ...] in `state_dtype`.

    `velocity_fn(state, t)`: the velocity, or with guidance > 0 the pair (with condition, with the negative
    condition). `on_step(done, evaluations)` after every step.
    """
    times = base_times(steps, shift)
    wide = state_dtype(noise.device)
    state = noise.to(wide)
    for i, (now, following) in enumerate(pairwise(times)):
        found = velocity_fn(state, now)
        if guidance > 0:
            positive, negative = found
            velocity = limited_guidance(positive, negative, guidance)
        else:
            velocity = cast(torch.Tensor, found)  # without guidance the function gives no pair
        state = state + (following - now) * velocity.to(wide)
        if on_step is not None:
            on_step(i + 1, steps - 1)
    return state


def turbo_sample(
    velocity_fn: Velocity,
    noise: torch.Tensor,
    steps: int = 8,
    renoise: torch.Generator | torch.Tensor | Sequence[torch.Tensor] | None = None,
    on_step: OnStep | None = None,
) -> torch.Tensor:
    """The distilled decoder's rule on uniform times; returns the data [B, ...] in `state_dtype`.

    At each step the data are predicted, x1 = x + (1 - t) * v, and mixed with fresh noise for the next time
    t': t' * x1 + (1 - t') * noise. The last step ends at t' = 1 and needs no noise. `renoise`: a generator
    (noise is then drawn on its device), or the fresh noises in order, at least `steps` - 1. Raises UserError
    below 1 step.
    """
    if steps < 1:
        raise UserError(f"the turbo decoder takes at least 1 step, not {steps}")
    if steps > 1 and renoise is None:
        raise ValueError("turbo_sample needs a generator (or noises) for more than one step")
    wide = state_dtype(noise.device)
    state = noise.to(wide)
    for i in range(steps):
        now, following = i / steps, (i + 1) / steps
        data = state + (1 - now) * velocity_fn(state, now).to(wide)
        if i == steps - 1:
            state = data
        elif isinstance(renoise, torch.Generator):
            fresh = torch.randn(state.shape, generator=renoise, device=renoise.device)
            state = following * data + (1 - following) * fresh.to(state)
        else:
            assert renoise is not None  # asked above: this is not the only step
            state = following * data + (1 - following) * renoise[i].to(state)
        if on_step is not None:
            on_step(i + 1, steps)
    return state
