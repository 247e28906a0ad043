"""Compiled layers: the same training, also after a stop, and where it cannot be had; attention in bfloat16 on a CPU."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.utils import counters
from torch.nn.functional import scaled_dot_product_attention
from torch.profiler import ProfilerActivity, profile

from llada_uni.errors import UserError
from llada_uni.training.loop import layers
from llada_uni.training.loop.layers import plain_attention
from llada_uni.training.loop.parallel import ParallelOptions
from llada_uni.training.loop.ranks import Processes
from llada_uni.training.loop.trainer import LoopOptions, Trainer
from tests.training.helpers.runs import fit, rows
from tests.training.helpers.stages import STAGES, Line

ALONE = Processes()
COMPILED = {"compile": True, "micro_batches": 2, "log_every": 2, "evaluate_every": 3}


class Layer(nn.Module):
    """What is compiled must not be of torch.nn itself, whose own modules torch leaves as they are."""

    def __init__(self, linear: nn.Module) -> None:
        super().__init__()
        self.linear = linear

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x) * 1.5


class Layered(Line):
    def __init__(self, processes: Processes) -> None:
        super().__init__(processes)
        self.model[0] = Layer(self.model[0])

    def compile_units(self) -> list[nn.Module]:
        return [self.model[0]]


@pytest.fixture(autouse=True)
def layered(monkeypatch):
    monkeypatch.setitem(STAGES, "layered", Layered)


def test_compiled_layers_learn_the_same_also_after_a_stop(tmp_path):
    fit(ALONE, "layered", tmp_path / "plain", {**COMPILED, "compile": False})
    counters.clear()
    fit(ALONE, "layered", tmp_path / "whole", COMPILED)
    assert counters["stats"]["unique_graphs"] >= 1
    for row, wanted in zip(rows(tmp_path / "whole"), rows(tmp_path / "plain"), strict=True):
        assert row == {key: pytest.approx(value, rel=1e-4, abs=1e-6) for key, value in wanted.items()}
    fit(ALONE, "layered", tmp_path / "cut", COMPILED, stop_after=3)
    fit(ALONE, "layered", tmp_path / "cut", COMPILED)
    assert rows(tmp_path / "cut") == rows(tmp_path / "whole")


def test_it_says_what_is_missing(tmp_path, monkeypatch):
    with pytest.raises(UserError, match=r"neither parallel\.shard nor parallel\.activation_checkpointing"):
        fit(ALONE, "layered", tmp_path / "run", COMPILED, {"activation_checkpointing": True})
    monkeypatch.setattr(layers, "find_compiler", lambda: None)
    with pytest.raises(UserError, match=r"needs a C\+\+ compiler"):
        fit(ALONE, "layered", tmp_path / "run", COMPILED)
    monkeypatch.setattr(Layered, "compile_units", lambda self: [])
    with pytest.raises(UserError, match="no layers that could be compiled"):
        fit(ALONE, "layered", tmp_path / "run", COMPILED)


def test_plain_attention_is_attention_in_bfloat16_and_leaves_torch_as_it_was():
    generator = torch.Generator().manual_seed(0)
    drawn = [torch.randn(2, 2, 40, 16, generator=generator) for _ in range(3)]

    def gradients(dtype: torch.dtype, plain: bool) -> list[torch.Tensor]:
        qkv = [each.to(dtype).requires_grad_() for each in drawn]
        with plain_attention(plain), profile(activities=[ProfilerActivity.CPU]) as seen:
            found = scaled_dot_product_attention(*qkv)
            found.square().sum().backward()
        operations = {event.key for event in seen.key_averages()}
        assert ("aten::_softmax" in operations) is plain
        return [found, *(each.grad for each in qkv)]

    before = torch.backends.cuda.fp16_bf16_reduction_math_sdp_allowed()
    for low, exact in zip(gradients(torch.bfloat16, True), gradients(torch.float32, False), strict=True):
        assert low.dtype == torch.bfloat16 and torch.allclose(low.float(), exact, atol=0.05 * exact.abs().max().item())
    with pytest.raises(KeyError), plain_attention(True):
        raise KeyError
    assert torch.backends.cuda.fp16_bf16_reduction_math_sdp_allowed() is before


@pytest.mark.parametrize("changed", [(), ("loop.lr",)])
def test_operations_are_kept_for_the_next_call_unless_batches_may_have_changed(tmp_path, changed):
    fit(ALONE, "layered", tmp_path, {"lr": 0.01}, stop_after=2)
    options = LoopOptions(steps=6, micro_batches=4, ema=0.8, tensorboard=False)
    trainer = Trainer(Layered(ALONE), options, tmp_path, 5, ParallelOptions(), ALONE)
    assert trainer.resume(changed) == 2
    assert (trainer.operations is None) is bool(changed)
