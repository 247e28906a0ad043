"""Consistency distillation: the derivative along the path, the loss on paths known exactly, freezing and export."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from llada_uni.decoder.decode import ImageDecoder
from llada_uni.decoder.model import load_transformer
from llada_uni.decoder.sampling import limited_guidance
from llada_uni.decoder.transformer import context_of, head_of
from llada_uni.errors import UserError
from llada_uni.image.codes import ImageCodes
from llada_uni.training.decoder.distill import (
    DistillOptions,
    consistency_losses,
    path_derivative,
    target_by_derivative,
    target_by_step,
)
from llada_uni.training.loop.ranks import Processes
from llada_uni.training.loop.trainer import LoopOptions, run
from tests.training.helpers.runs import loss_of
from tests.training.tiny_decoder import SIZES, latent_options, make_tiny_decoder

MEAN, SPREAD = torch.tensor([1.0, -0.5]), torch.tensor([0.3, 0.8])
"""Data of the exact case: a normal distribution in the plane. Its paths, and so u, are known in closed form."""


def _deviation(t):
    """Standard deviation of x_t = t x1 + (1 - t) x0, for t [B, 1]."""
    return (t**2 * SPREAD**2 + (1 - t) ** 2).sqrt()


def exact_velocity(x, t):
    t = t.unsqueeze(1)
    slope = (t * SPREAD**2 - (1 - t)) / _deviation(t) ** 2
    return MEAN + slope * (x - t * MEAN)


def exact_average(x, t):
    """The path through (x, t) keeps its number of deviations from the mean: it ends at MEAN + SPREAD * that number."""
    t = t.unsqueeze(1)
    end = MEAN + SPREAD * (x - t * MEAN) / _deviation(t)
    return (end - x) / (1 - t)


def points(count, highest=1.0):
    t = torch.rand(count) * highest
    at = t.unsqueeze(1)
    return at * (MEAN + SPREAD * torch.randn(count, 2)) + (1 - at) * torch.randn(count, 2), t


@pytest.fixture(scope="module")
def model(golden, tmp_path_factory):
    return make_tiny_decoder(tmp_path_factory.mktemp("model"), golden)


@pytest.fixture(scope="module")
def build(model, tmp_path_factory):
    latents = latent_options(model, tmp_path_factory.mktemp("latents"))

    def make(**changes):
        return DistillOptions(latents, str(model), sizes=SIZES, **{"batch": 3, **changes}).build(Processes(), 0)

    return make


def test_the_exact_average_velocity_has_no_loss():
    torch.manual_seed(0)
    x, t = (tensor.double() for tensor in points(1000, 0.99))
    v = exact_velocity(x, t)
    _, derivative = torch.func.jvp(exact_average, (x, t), (v, torch.ones_like(t)))
    target = target_by_derivative(v, derivative, t)
    average, instant = consistency_losses(exact_average(x, t), v, v, target)
    assert average.max() < 1e-10 and instant.max() == 0
    wrong, _ = consistency_losses(v, v, v, target)  # the velocity itself is no average: paths are curved
    assert wrong.mean() > 0.01


def test_the_difference_is_of_second_order():
    torch.manual_seed(0)
    x, t = (tensor.double() for tensor in points(1000, 0.6))
    t = t + 0.2
    v = exact_velocity(x, t)
    _, exact = torch.func.jvp(exact_average, (x, t), (v, torch.ones_like(t)))
    errors = [(path_derivative(exact_average, x, t, v, torch.full_like(t, step)) - exact).norm() for step in (0.04, 0.02, 0.01)]
    assert errors[0] / errors[1] == pytest.approx(4, rel=0.15) and errors[1] / errors[2] == pytest.approx(4, rel=0.05)
    assert errors[2] / exact.norm() < 0.001


def test_the_step_is_of_second_order():
    torch.manual_seed(0)
    x, t = (tensor.double() for tensor in points(1000, 0.9))
    v, exact = exact_velocity(x, t), exact_average(x, t)
    errors = [(target_by_step(exact_average, x, t, v, part) - exact).norm() for part in (0.04, 0.02, 0.01)]
    assert errors[0] / errors[1] == pytest.approx(4, rel=0.15) and errors[1] / errors[2] == pytest.approx(4, rel=0.1)
    assert errors[2] / exact.norm() < 0.001


def test_an_error_grows_by_the_derivative_and_fades_by_the_step():
    torch.manual_seed(0)
    x, _ = (tensor.double() for tensor in points(10, 0.9))
    t = torch.full((10,), 0.5).double()
    v = exact_velocity(x, t)

    def with_wave(x, t):  # 1 too much at 0.55, 1 too little at 0.45
        return exact_average(x, t) + (10 * torch.pi * (t - 0.5)).sin().unsqueeze(1)

    def error(target_of):
        return (target_of(with_wave) - target_of(exact_average)).abs().max().item()

    def by_derivative(u):
        return target_by_derivative(v, path_derivative(u, x, t, v, torch.full_like(t, 0.05)), t)

    assert error(by_derivative) == pytest.approx(2 * 5)
    assert error(lambda u: target_by_step(u, x, t, v, 0.1)) == pytest.approx(0.9)


def test_the_difference_equals_the_derivative_of_the_network(build):
    stage = build()
    torch.manual_seed(1)
    x, v, t = torch.randn(2, 4, 1, 8, 8), torch.randn(2, 4, 1, 8, 8), torch.tensor([0.3, 0.7])
    with torch.no_grad():
        context = context_of(stage.student.transformer, torch.randn(2, 16, 32), (4, 1, 8, 8))
        with sdpa_kernel(SDPBackend.MATH):  # the fused kernel has no forward derivative
            _, exact = torch.func.jvp(lambda x, t: stage.student(x, t, context)[0], (x, t), (v, torch.ones_like(t)))
    both = context.repeat(2)
    found = path_derivative(lambda x, t: stage.student(x, t, both)[0], x, t, v, torch.full_like(t, 2e-4))
    assert (found - exact).norm() / exact.norm() < 0.01
    assert not found.requires_grad


def test_near_the_ends_no_time_leaves_0_to_1():
    asked = []

    def u(x, t):
        asked.append(t)
        return x * t.unsqueeze(1)

    x, v, t = torch.ones(3, 2), torch.full((3, 2), 2.0), torch.tensor([0.0, 0.5, 1.0])
    found = path_derivative(u, x, t, v, torch.full((3,), 0.1))
    assert asked[0].min() >= 0 and asked[0].max() <= 1
    # Along x + s v the derivative of x t is v t + x: at the middle exactly, at the ends 0.1 further inside, on the path.
    expected = torch.tensor([2 * 0.1 + 1.2, 2 * 0.5 + 1.0, 2 * 0.9 + 0.8])
    torch.testing.assert_close(found, expected.unsqueeze(1).expand(3, 2))


def test_at_the_data_end_the_target_stays_finite(build):
    stage = build()
    stage.options.times.draw = lambda count, generator: torch.tensor([0.0, 1 - 2**-24, 1.0])[:count]
    loss = loss_of(stage)
    assert torch.isfinite(loss.total) and loss.total < 100


@pytest.mark.parametrize(("source", "rule"), [("teacher", "derivative"), ("data", "derivative"), ("teacher", "step")])
def test_training_finds_the_exact_average_velocity(source, rule):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(3, 64), nn.SiLU(), nn.Linear(64, 64), nn.SiLU(), nn.Linear(64, 4))

    def heads(x, t):
        return network(torch.cat([x, t.unsqueeze(1)], 1)).chunk(2, 1)

    optimizer = torch.optim.Adam(network.parameters(), 3e-3)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.02, total_iters=700)
    for _ in range(700):
        x1, x0, t = MEAN + SPREAD * torch.randn(256, 2), torch.randn(256, 2), torch.rand(256)
        x = t.unsqueeze(1) * x1 + (1 - t.unsqueeze(1)) * x0
        v_t = x1 - x0 if source == "data" else exact_velocity(x, t)
        u, v = heads(x, t)
        if rule == "step":
            target = target_by_step(lambda x, t: heads(x, t)[0], x, t, v_t, 0.1)
        else:
            derivative = path_derivative(lambda x, t: heads(x, t)[0], x, t, v_t, 0.1 * (1 - t).clamp_min(1e-4))
            target = target_by_derivative(v_t, derivative, t)
        loss = sum(part.mean() for part in consistency_losses(u, v, v_t, target))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    x, t = points(2000, 0.95)
    with torch.no_grad():
        u, v = heads(x, t)
        average, instant = exact_average(x, t), exact_velocity(x, t)
        wide = 1 - t.unsqueeze(1)

        def distance(found, wanted):
            return (wide * (found - wanted)).square().mean().sqrt()

        assert distance(u, average) < 0.06  # of the data end that u leads to; measured: 0.03
        assert distance(v, instant) < 0.15  # measured: 0.09
        assert distance(instant, average) > 0.3  # where the velocity itself would lead


def test_u_starts_as_the_velocity_and_the_teacher_stays(build, tmp_path):
    stage = build()
    state, t = torch.randn(2, 4, 1, 8, 8), torch.tensor([0.2, 0.6])
    condition = stage.teacher.condition(torch.tensor([[[1, 2], [3, 4]]] * 2))
    with torch.no_grad():
        u, v = stage.student(state, t, context_of(stage.student.transformer, condition, (4, 1, 8, 8)))
    assert torch.equal(u, v)
    before = {name: tensor.clone() for name, tensor in stage.state_dict().items()}
    run(stage, LoopOptions(steps=2, lr=1e-2, warmup=1, log_every=1, tensorboard=False), tmp_path)
    changed = {name.split(".")[0] for name, tensor in stage.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed == {"student"}


def test_only_the_head_of_u_is_exported_and_it_paints(build, model, tmp_path):
    stage = build()
    run(stage, LoopOptions(steps=2, lr=1e-2, warmup=1, log_every=1, tensorboard=False), tmp_path)
    folder = tmp_path / "model"
    assert [path.name for path in folder.iterdir()] == ["decoder-turbo"]
    exported = load_transformer(folder / "decoder-turbo")
    assert not any("auxiliary" in name for name in exported.state_dict())
    decoder = ImageDecoder(model, transformers={"turbo": exported})
    codes, state = ImageCodes((1, 2, 3, 4), 2, 2), torch.randn(1, 4, 1, 8, 8)
    condition = decoder.condition(codes)
    with torch.no_grad():
        u, v = stage.student(state, torch.tensor([0.4]), context_of(stage.student.transformer, condition, (4, 1, 8, 8)))
    found = decoder.velocity("turbo", state, 0.4, condition)
    torch.testing.assert_close(found, u, atol=1e-5, rtol=0)
    assert (found - v).abs().max() > 1e-3
    assert decoder.decode(codes, "turbo").size == (32, 32)


def test_the_target_velocity_is_the_samplers(build, model):
    x, t = torch.randn(2, 4, 1, 8, 8), torch.tensor([0.3, 0.3])
    codes = torch.tensor([[[1, 2], [3, 4]]] * 2)
    decoder = ImageDecoder.from_pretrained(model)
    condition = decoder.condition(ImageCodes((1, 2, 3, 4), 2, 2)).repeat(2, 1, 1)
    positive = decoder.velocity("base", x, 0.3, condition)
    negative = decoder.velocity("base", x, 0.3, torch.zeros_like(condition))
    for kind, expected in (("plain", positive), ("guided", limited_guidance(positive, negative, 1.0))):
        stage = build(velocity=kind)
        context = stage.teacher_context(stage.teacher.condition(codes), (4, 1, 8, 8))
        torch.testing.assert_close(stage.teacher_velocity(x, t, context), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("velocity", "rule"), [("guided", "derivative"), ("plain", "derivative"), ("data", "derivative"), ("guided", "step")]
)
def test_every_target_gives_a_finite_loss(build, velocity, rule):
    stage = build(velocity=velocity, rule=rule)
    loss = loss_of(stage)
    loss.total.backward()
    assert torch.isfinite(loss.total) and loss.weight == 3
    assert head_of(stage.student.transformer).linear.weight.grad.abs().sum() > 0
    metrics = stage.evaluate(0)
    assert metrics == stage.evaluate(1) and set(metrics) == {"end_from_start", "end_from_middle", "loss"}


def test_mistakes_are_named(build):
    with pytest.raises(UserError, match=r"velocity is 'fast'; allowed: guided, plain, data"):
        build(velocity="fast")
    with pytest.raises(UserError, match=r"epsilon is 0\.5; allowed: above 0 and less than 0\.25"):
        build(epsilon=0.5)
