"""The loop on one process: gradients by hand, accumulation, averages, evaluation, and everything that can go wrong."""

from __future__ import annotations

import os
import signal
import time

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from llada_uni.errors import UserError
from llada_uni.training.loop.checkpoints import load_full
from llada_uni.training.loop.ranks import Processes
from llada_uni.training.loop.trainer import LoopOptions, run
from tests.training.helpers.runs import fit, loss_of, rows
from tests.training.helpers.stages import Line
from tests.training.helpers.together import start

ALONE = Processes()


def test_a_step_is_adamw_on_the_gradient_of_the_global_mean(tmp_path):
    loop = {"steps": 3, "warmup": 1, "schedule": "constant", "ema": 0.0, "clip": 0.5, "weight_decay": 0.1}
    fit(ALONE, "line", tmp_path, loop)
    by_hand = Line()
    matrices = [weight for weight in by_hand.parameters() if weight.dim() == 2]
    biases = [weight for weight in by_hand.parameters() if weight.dim() == 1]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": biases, "weight_decay": 0.0}]
    adamw = torch.optim.AdamW(groups, 0.02, (0.9, 0.98))
    for step in range(3):
        losses = [loss_of(by_hand, step, micro_batch, seed=5) for micro_batch in range(4)]
        adamw.zero_grad()
        loss = sum(loss.total for loss in losses) / sum(loss.weight for loss in losses)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(by_hand.parameters(), 0.5)
        adamw.step()
        assert rows(tmp_path)[step]["loss"] == pytest.approx(loss.item(), rel=1e-6)
        assert rows(tmp_path)[step]["norm"] == pytest.approx(norm.item(), rel=1e-6)
    torch.testing.assert_close(load_file(tmp_path / "model" / "model.safetensors"), dict(by_hand.state_dict()))


def test_log_every_gives_means_over_all_steps_since_the_last_row(tmp_path):
    fit(ALONE, "line", tmp_path / "each", {"ema": 0.0})
    fit(ALONE, "line", tmp_path / "third", {"ema": 0.0, "log_every": 3})
    assert [row["step"] for row in rows(tmp_path / "third")] == [3, 6]
    assert rows(tmp_path / "third")[0]["norm"] == pytest.approx(sum(row["norm"] for row in rows(tmp_path / "each")[:3]) / 3)


def test_averaged_weights_are_evaluated_and_exported(tmp_path):
    fit(ALONE, "line", tmp_path, {"evaluate_every": 3})
    exported = load_file(tmp_path / "model" / "model.safetensors")
    averaged, last = load_full(tmp_path, ema=True), load_full(tmp_path, ema=False)
    assert all(torch.equal(exported[name], averaged[name]) for name in exported)
    assert not torch.equal(averaged["model.0.weight"], last["model.0.weight"])
    stage = Line()
    stage.load_state_dict(averaged)
    evaluated = [row for row in rows(tmp_path) if "eval/output" in row]
    assert [row["step"] for row in evaluated] == [3, 6]
    assert evaluated[-1]["eval/output"] == pytest.approx(stage.evaluate(6)["output"], rel=1e-5)


def test_stop_after_leaves_with_a_checkpoint_and_the_next_call_goes_on(tmp_path):
    whole = fit(ALONE, "line", tmp_path / "whole", {"log_every": 4})
    first = fit(ALONE, "line", tmp_path / "cut", {"log_every": 4}, stop_after=2)
    assert (first["step"], first["finished"], first["stopped"]) == (2, False, "stop_after")
    assert not (tmp_path / "cut" / "model").exists()
    second = fit(ALONE, "line", tmp_path / "cut", {"log_every": 4})
    assert (second["step"], second["finished"], second["stopped"]) == (6, True, None)
    assert rows(tmp_path / "cut") == rows(tmp_path / "whole")
    assert second["metrics"]["loss"] == whole["metrics"]["loss"]
    again = fit(ALONE, "line", tmp_path / "cut", {"log_every": 4})  # nothing is left to do
    assert again["finished"] and rows(tmp_path / "cut") == rows(tmp_path / "whole")


def test_a_loss_that_is_not_finite_stops_with_its_batch_saved(tmp_path):
    with pytest.raises(UserError, match=r"loss of step 3 is not finite.*step-00000003\.pt.*on_nan=skip"):
        fit(ALONE, "line", tmp_path, {"save_every": 1}, bad=(3,))
    batch = torch.load(tmp_path / "bad-batches" / "step-00000003.pt", weights_only=True)
    assert list(batch) == [f"micro_batch {i}" for i in range(4)] and batch["micro_batch 0"]["x"].shape[1] == 4
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["step-00000002", "step-00000003"]


def test_skipping_leaves_the_weights_and_has_a_limit(tmp_path, capsys):
    summary = fit(ALONE, "line", tmp_path / "some", {"on_nan": "skip", "max_skips": 2}, bad=(2, 3))
    assert summary["finished"] and "step 2 is not finite" in capsys.readouterr().out
    assert [row["step"] for row in rows(tmp_path / "some") if "loss" in row] == [1, 2, 5, 6]
    assert torch.isfinite(load_full(tmp_path / "some")["model.0.weight"]).all()
    with pytest.raises(UserError, match=r"3 steps in a row"):
        fit(ALONE, "line", tmp_path / "many", {"on_nan": "skip", "max_skips": 2}, bad=(1, 2, 3))


def test_a_signal_saves_and_ends_and_the_run_goes_on_as_if_nothing_had_happened(tmp_path):
    loop = {"steps": 30}
    fit(ALONE, "line", tmp_path / "whole", loop)
    for number in (signal.SIGTERM, signal.SIGINT):
        out = tmp_path / number.name
        process = start(_fit_slowly, out, loop)
        while not (out / "log.jsonl").exists():
            time.sleep(0.01)
        os.kill(process.pid, number)
        process.join(60)
        assert process.exitcode == 0
        done = len(rows(out))
        assert 1 <= done < 30 and (out / "checkpoints" / f"step-{done:08}" / "meta.json").exists()
        assert fit(ALONE, "line", out, loop)["finished"]
        assert rows(out) == rows(tmp_path / "whole")


def _fit_slowly(out, loop):
    summary = fit(ALONE, "line", out, loop, slow=0.01)
    assert summary["stopped"] in ("SIGTERM", "SIGINT")


def test_bfloat16_computes_low_and_keeps_float32(tmp_path):
    seen = []

    class Low(Line):
        def loss(self, batch):
            seen.append(self.model(torch.randn(2, 4)).dtype)
            return super().loss(batch)

    run(Low(), LoopOptions(steps=2, precision="bfloat16", tensorboard=False), tmp_path)
    assert set(seen) == {torch.bfloat16}
    assert {tensor.dtype for tensor in load_full(tmp_path).values()} == {torch.float32}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"schedule": "linear"}, "constant, cosine, wsd"),
        ({"precision": "fp8"}, "float32, bfloat16"),
        ({"on_nan": "ignore"}, "stop, skip"),
        ({"steps": 0}, "at least 1"),
        ({"prefetch": -1}, "at least 0"),
        ({"ema": 1.0}, "less than 1"),
    ],
)
def test_wrong_options_are_named(wrong, message):
    with pytest.raises(UserError, match=message):
        LoopOptions(**wrong)
