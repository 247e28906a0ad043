"""`loop.compile`: the same training by compiled layers, also after a stop; and where it cannot be had."""

from __future__ import annotations

import pytest
from torch import Tensor, nn
from torch._dynamo.utils import counters

from llada_uni.errors import UserError
from llada_uni.training.loop import trainer
from llada_uni.training.loop.ranks import Processes
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
    monkeypatch.setattr(trainer, "find_compiler", lambda: None)
    with pytest.raises(UserError, match=r"needs a C\+\+ compiler"):
        fit(ALONE, "layered", tmp_path / "run", COMPILED)
    monkeypatch.setattr(Layered, "compile_units", lambda self: [])
    with pytest.raises(UserError, match="no layers that could be compiled"):
        fit(ALONE, "layered", tmp_path / "run", COMPILED)
