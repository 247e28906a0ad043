"""The loop: schedules, and a killed run that goes on exactly as if nothing had happened."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn

from llada_uni.errors import UserError
from llada_uni.training.loop import LoopConfig, learning_rate, run


def test_schedules_rise_hold_and_fall():
    wsd = LoopConfig(steps=100, lr=1.0, out="", warmup=10, decay="wsd", decay_fraction=0.2)
    assert learning_rate(wsd, 0) == pytest.approx(0.1)
    assert learning_rate(wsd, 10) == learning_rate(wsd, 79) == 1.0
    assert learning_rate(wsd, 90) == pytest.approx(0.5)
    cosine = LoopConfig(steps=100, lr=1.0, out="", warmup=10)
    assert learning_rate(cosine, 55) == pytest.approx(0.02 + 0.98 * 0.5)
    assert learning_rate(cosine, 99) < 0.03
    with pytest.raises(UserError, match="cosine, wsd"):
        learning_rate(LoopConfig(steps=10, lr=1.0, out="", warmup=1, decay="linear"), 5)


def _train(out, steps, stop_at=None):
    """Fits a line with noisy data; returns the losses that the log holds. stop_at: raise there, as a kill would."""
    torch.manual_seed(0)
    model = nn.Linear(3, 1)
    seen = []

    def loss(step, rng):
        if step == stop_at:
            raise KeyboardInterrupt
        x = torch.randn(8, 3)
        value = (model(x) - x.sum(1, keepdim=True) + rng.random()).square().mean()
        seen.append(value.item())
        return value, {}

    config = LoopConfig(steps, 0.05, str(out), warmup=2, save_seconds=0.0, log_every=1)
    try:
        run(nn.ModuleDict({"m": model}), loss, config)
    except KeyboardInterrupt:
        pass
    return seen


def test_a_killed_run_resumes_with_the_same_losses(tmp_path):
    whole = _train(tmp_path / "whole", 12)
    first = _train(tmp_path / "cut", 12, stop_at=7)
    second = _train(tmp_path / "cut", 12)
    assert len(first) == 7 and first + second == whole
    rows = [json.loads(line) for line in (tmp_path / "cut" / "log.jsonl").read_text().splitlines()]
    assert [r["step"] for r in rows] == list(range(1, 13))


def test_a_loss_that_is_not_finite_stops_and_keeps_the_checkpoint(tmp_path):
    model = nn.Linear(1, 1)

    def loss(step, rng):
        return model(torch.ones(1, 1)).sum() * (float("nan") if step == 3 else 1.0), {}

    with pytest.raises(UserError, match="step 3"):
        run(nn.ModuleDict({"m": model}), loss, LoopConfig(5, 0.1, str(tmp_path), save_seconds=0.0))
    assert torch.load(tmp_path / "checkpoint.pt", weights_only=True)["step"] == 3
