"""The best evaluation: its checkpoint stays and is exported, patience ends a run, and all of it survives a resume."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file

from llada_uni.errors import UserError
from llada_uni.training.loop.best import Best
from llada_uni.training.loop.checkpoints import load_full
from llada_uni.training.loop.options import LoopOptions
from llada_uni.training.loop.ranks import Processes
from llada_uni.training.loop.trainer import run
from tests.training.helpers.runs import rows
from tests.training.helpers.stages import Line

WORTH = [5.0, 3.0, 4.0, 2.0, 2.5, 6.0, 7.0, 1.0]


class Judged(Line):
    """A stage whose evaluations are written down beforehand."""

    def evaluate(self, step: int) -> dict[str, float]:
        return {"loss": WORTH[step - 1], "right": -WORTH[step - 1]}


def fit(out, steps=8, stop_after=None, **loop):
    small = {"micro_batches": 2, "warmup": 0, "log_every": 1, "evaluate_every": 1, "tensorboard": False, "keep": 1, "ema": 0.8}
    torch.set_num_threads(1)
    options = LoopOptions(**{"steps": steps, "lr": 0.02, **small, **loop})
    return run(Judged(Processes()), options, out, 5, stop_after=stop_after)


@pytest.mark.parametrize("watch", ["loss", "-right"])
@pytest.mark.parametrize("stop_after", [None, 2, 5])
def test_patience_ends_the_run_and_the_best_is_exported(tmp_path, watch, stop_after):
    settings = {"watch": watch, "patience": 3, "keep_best": True, "save_every": 1}
    if stop_after:
        fit(tmp_path / "run", stop_after=stop_after, **settings)
    found = fit(tmp_path / "run", **settings)
    assert found["finished"] and found["step"] == 7  # the best is the fourth, then three are worse
    names = sorted(path.name for path in (tmp_path / "run" / "checkpoints").iterdir())
    assert names == ["step-00000004", "step-00000007"]  # keep: 1, and the best
    fit(tmp_path / "four", steps=4)
    exported, whole = (load_file(tmp_path / name / "model" / "model.safetensors") for name in ("run", "four"))
    best = load_full(tmp_path / "run", step=4)
    for name, tensor in exported.items():
        assert torch.equal(tensor, best[name])
    assert exported.keys() == whole.keys()
    again = fit(tmp_path / "run", **settings)  # asked for again, it stays at its end
    assert again["finished"] and again["step"] == 7 and len(rows(tmp_path / "run")) == 14


def test_without_patience_the_last_evaluation_may_be_the_best(tmp_path):
    found = fit(tmp_path, keep_best=True)
    assert found["step"] == 8 and [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-00000008"]


def test_the_state_goes_on():
    first = Best("loss", 2)
    assert [first.saw(step, {"loss": worth}) for step, worth in ((1, 3.0), (2, 2.0), (3, 4.0))] == [True, True, False]
    second = Best("loss", 2)
    second.load_state(json.loads(json.dumps(first.state())))
    assert not second.over and not second.saw(4, {"loss": 2.0}) and second.over and second.step == 2
    fresh = Best("loss", 2)
    fresh.load_state(json.loads(json.dumps(Best("loss", 2).state())))
    assert fresh.saw(1, {"loss": 1e9})


def test_mistakes_are_named(tmp_path):
    with pytest.raises(UserError, match=r"loop\.watch is 'psnr', but an evaluation of this stage has: loss, right"):
        fit(tmp_path, watch="psnr", patience=1)
    with pytest.raises(UserError, match=r"set loop\.evaluate_every"):
        LoopOptions(patience=3)
