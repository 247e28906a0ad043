"""The samplers as pure functions: known paths, diffusers' scheduler, limits of guidance, generators."""

from __future__ import annotations

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler

from llada_uni.decoder.sampling import base_sample, base_times, limited_guidance, turbo_sample
from llada_uni.errors import UserError


def noise(seed: int = 0, *shape: int) -> torch.Tensor:
    return torch.randn(shape or (2, 3, 1, 4, 4), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("steps", [2, 3, 10, 50])
def test_times_follow_the_formula(steps):
    uniform = torch.linspace(0, 1, steps, dtype=torch.float64)
    expected = uniform / (uniform + 6 - 6 * uniform)
    times = torch.tensor(base_times(steps), dtype=torch.float64)
    torch.testing.assert_close(times, expected, atol=2e-7, rtol=0)
    assert times[0] == 0 and times[-1] == 1
    assert torch.allclose(torch.tensor(base_times(steps, shift=1.0)), uniform.float(), atol=2e-7)


def test_straight_paths_are_exact():
    start, data = noise(1), noise(2)
    calls = []

    def velocity(state, t):
        calls.append(t)
        return data.double() - start.double()

    found = base_sample(velocity, start, 10, guidance=0.0)
    torch.testing.assert_close(found, data.double(), atol=1e-6, rtol=0)
    assert found.dtype == torch.float64
    assert len(calls) == 9 and calls[0] == 0.0


def test_base_equals_diffusers_scheduler():
    weight = noise(3, 16, 16) / 4

    def velocity(state, t):
        return torch.tanh(state.float().flatten(2) @ weight).view(state.shape) * (1 + t)

    scheduler = FlowMatchEulerDiscreteScheduler(shift=6.0)
    scheduler.set_timesteps(sigmas=[1 - i / 11 for i in range(11)])
    state = noise(4)
    for sigma, step in zip(scheduler.sigmas[:-1], scheduler.timesteps, strict=True):
        state = scheduler.step(-velocity(state, 1 - sigma.item()), step, state, return_dict=False)[0]
    found = base_sample(velocity, noise(4), 12, guidance=0.0)
    torch.testing.assert_close(found.float(), state, atol=1e-5, rtol=0)


def test_guidance_is_limited_per_sample():
    positive, negative = noise(5), noise(6)
    negative[1] = 0.5 * positive[1]
    guided = limited_guidance(positive, negative, 1.0)
    norms = guided.flatten(1).norm(dim=1)
    limits = positive.flatten(1).norm(dim=1)
    assert torch.allclose(
        norms, limits, rtol=1e-5
    )  # p - n is long in one, along p in the other: both are limited
    direction = positive[0] + (positive[0] - negative[0])
    torch.testing.assert_close(guided[0], direction * (limits[0] / direction.norm()))
    torch.testing.assert_close(limited_guidance(positive, 2 * positive, 1.0), torch.zeros_like(positive))
    torch.testing.assert_close(limited_guidance(positive, 1.5 * positive, 1.0), 0.5 * positive)


def test_guided_sampling_uses_both_velocities():
    start = noise(7)
    positive, negative = noise(8), noise(9)
    one_step = base_sample(lambda state, t: (positive, negative), start, 2)
    torch.testing.assert_close(one_step, start.double() + limited_guidance(positive, negative, 1.0).double())


def test_turbo_follows_the_rule_and_the_given_noises():
    start, fresh = noise(10), [noise(20 + i) for i in range(3)]

    def velocity(state, t):
        return (0.3 * state + t).float()

    state = start.double()
    for i in range(3):
        t, following = i / 3, (i + 1) / 3
        state = (
            following * (state + (1 - t) * velocity(state, t).double()) + (1 - following) * fresh[i].double()
        )
    torch.testing.assert_close(turbo_sample(velocity, start, 3, fresh), state)
    torch.testing.assert_close(
        turbo_sample(velocity, start, 3, fresh[:2]), state
    )  # the last one is not needed


def test_turbo_generator():
    def velocity(state, t):
        return -state.float()

    runs = [turbo_sample(velocity, noise(1), 4, torch.Generator().manual_seed(seed)) for seed in (3, 3, 4)]
    assert torch.equal(runs[0], runs[1])
    generator = torch.Generator().manual_seed(3)
    fresh = [torch.randn(noise(1).shape, generator=generator) for _ in range(3)]
    assert torch.equal(runs[0], turbo_sample(velocity, noise(1), 4, fresh))
    global_state = torch.get_rng_state()
    other = turbo_sample(lambda s, t: torch.zeros_like(s), noise(1), 4, torch.Generator().manual_seed(4))
    assert torch.equal(torch.get_rng_state(), global_state)
    assert not torch.equal(other, turbo_sample(lambda s, t: torch.zeros_like(s), noise(1), 4, fresh))


def test_on_step_counts_evaluations():
    seen = []
    base_sample(lambda s, t: s, noise(), 5, guidance=0.0, on_step=lambda *step: seen.append(step))
    turbo_sample(lambda s, t: s, noise(), 2, torch.Generator(), on_step=lambda *step: seen.append(step))
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4), (1, 2), (2, 2)]


def test_too_few_steps():
    with pytest.raises(UserError, match="at least 2 steps, not 1"):
        base_sample(lambda s, t: s, noise(), 1)
    with pytest.raises(UserError, match="at least 1 step, not 0"):
        turbo_sample(lambda s, t: s, noise(), 0)
