"""The router bias: the sign of its step pushes load away from crowded experts."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from llada_uni.training.language.balance import Balance, max_over_mean, update_bias
from llada_uni.training.loop.ranks import Processes
from tests.training.helpers.runs import loss_of
from tests.training.language.test_stage import build
from tests.training.token_folder import make_token_folder


def test_one_step_by_hand():
    """F - Q = (1/2, 0, -1/4, -1/4), rms = sqrt(3/32) = 0.306186; the step is -0.1 times their ratio, of zero mean."""
    bias, load = torch.zeros(4), torch.tensor([6.0, 2.0, 0.0, 0.0])
    update_bias(bias, load, rate=0.1)
    assert bias.tolist() == pytest.approx([-0.163299, 0.0, 0.081650, 0.081650], abs=1e-5)


def test_no_load_changes_nothing():
    bias = torch.tensor([1.0, -1.0])
    update_bias(bias, torch.zeros(2), 0.1)
    assert bias.tolist() == [1.0, -1.0]


def test_even_load_changes_nothing():
    bias = torch.tensor([0.25, -0.25])
    update_bias(bias, torch.full((2,), 7.0), 0.1)
    assert bias.tolist() == [0.25, -0.25]


def test_a_skewed_router_becomes_balanced():
    generator = torch.Generator().manual_seed(0)
    experts, bias = 8, torch.zeros(8)
    skew = torch.linspace(2.0, -2.0, experts)  # without a bias, nearly everything goes to the first two

    def load() -> torch.Tensor:
        scores = (torch.randn(2048, experts, generator=generator) + skew).sigmoid() + bias
        return torch.bincount(scores.topk(2).indices.flatten(), minlength=experts).float()

    assert max_over_mean(load()) > 2.5
    for _ in range(300):
        update_bias(bias, load(), rate=0.01)
    assert max_over_mean(load()) < 1.2


@pytest.fixture(scope="module")
def tokens(tmp_path_factory) -> Path:
    return make_token_folder(tmp_path_factory.mktemp("tokens"), words=range(60, 390))


def _skew(stage) -> None:
    """Turns every expert's gate along the mean of what it sees, up for the first experts and down for the last."""
    seen = []
    router = stage.backbone.routers()[0]
    handle = router.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].detach()))
    loss_of(stage)
    handle.remove()
    mean = seen[0].mean(0)
    with torch.no_grad():
        router.weight += torch.linspace(2, -2, len(router.weight))[:, None] * mean / mean.square().sum()
    router.reset_load()


def _train(stage, steps: int) -> tuple[torch.Tensor, list[dict[str, float]]]:
    """A real training: every weight learns, and the only thing that knows of balance is the bias. -> loads [steps, R, E]"""
    optimizer = torch.optim.AdamW(stage.parameters(), lr=1e-3)
    loads, rows = [], []
    for step in range(steps):
        loss = loss_of(stage, step)
        optimizer.zero_grad()
        (loss.total / loss.weight).backward()
        optimizer.step()
        loads.append(torch.stack([router.load.clone() for router in stage.backbone.routers()]))
        rows.append({name: float(value) for name, value in stage.after_step(step).items()})
    return torch.stack(loads), rows


def test_training_from_a_badly_skewed_router_is_balanced_after_40_steps(tokens):
    stage = build(tokens, balance=0.01, samples=24)
    _skew(stage)
    loads, rows = _train(stage, 60)
    assert rows[0]["load_max"] > 3.5 and rows[0]["dead"] >= 0.5  # of 4 at most: 2 of 8 experts a token
    assert max_over_mean(loads[40:].sum(0)).max() <= 1.5
    assert rows[-1]["dead"] == 0 and rows[-1]["bias"] > 0.1 and 0 < rows[-1]["router_drift"] < 1


def test_without_balancing_it_stays_skewed(tokens):
    stage = build(tokens, balance=0.0, samples=6)
    _skew(stage)
    loads, rows = _train(stage, 60)
    assert max_over_mean(loads[40:].sum(0)).max() > 2.5 and rows[-1]["bias"] == 0


class _Twice(Processes):
    """Two processes with the same load, as far as a sum tells."""

    def sum(self, tensor):
        return tensor.mul_(2)


def test_metrics_of_a_step(tokens):
    model = build(tokens).backbone
    balance = Balance(model, 0.1, _Twice())
    router = model.routers()[0]
    router.load.copy_(torch.tensor([6.0, 2, 0, 0, 0, 0, 0, 0]))
    metrics = {name: float(value) for name, value in balance.after_step().items()}
    expected = {"load_max": 6.0, "load_mean": 6.0, "dead": 0.75, "router_drift": 0.0}
    assert {name: metrics[name] for name in expected} == pytest.approx(expected, abs=1e-6)
    assert router.load.sum() == 0 and router.expert_bias[0] < 0 and abs(float(router.expert_bias.sum())) < 1e-6
    with torch.no_grad():
        router.weight.neg_()
    assert float(balance.after_step()["router_drift"]) == pytest.approx(2.0)
    balance.remember()
    assert float(balance.after_step()["router_drift"]) == pytest.approx(0.0, abs=1e-6)
