"""The log: global means, amounts per second, and a file that reads like that of an uninterrupted run."""

from __future__ import annotations

import json
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from llada_uni.errors import UserError
from llada_uni.training.loop.logs import RunLog, add_metrics, means, merged


def test_metrics_are_sums_over_counts_and_amounts_are_per_second():
    first, second = {}, {}
    add_metrics(first, {"loss": (torch.tensor(6.0, requires_grad=True) * 1, 2), "tokens": (100, 0)})
    add_metrics(first, {"loss": (2.0, 2)})
    add_metrics(second, {"loss": (1.0, 5), "other": (3, 1), "tokens": (torch.tensor(50), 0)})
    assert means(merged([first, second]), seconds=2.0) == {"loss": 1.0, "other": 3.0, "tokens_per_second": 75.0}
    assert first["loss"][0].requires_grad is False  # no graph is kept until the next row


def test_rows_go_to_the_file_and_the_console(tmp_path, capsys):
    with RunLog(tmp_path / "run", 0, 10, tensorboard=False) as log:
        log.row(1, {"loss": 1 / 3})
        log.advance(1)
        log.say("a [line] of text")
    assert json.loads((tmp_path / "run" / "log.jsonl").read_text()) == {"step": 1, "loss": 0.3333333}
    said = capsys.readouterr().out
    assert "step=1 loss=0.33333 left=0:00:0" in said and "a [line] of text" in said


def test_a_resumed_run_drops_later_and_broken_rows(tmp_path):
    whole = "".join(json.dumps({"step": step}) + "\n" for step in (1, 2, 3, 4))
    (tmp_path / "log.jsonl").write_text(whole + '{"step": 5, "lo')
    with RunLog(tmp_path, 2, 10, tensorboard=False) as log:
        log.row(3, {"loss": 1.0})
    assert [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()] == [
        {"step": 1},
        {"step": 2},
        {"step": 3, "loss": 1.0},
    ]


def test_other_processes_are_silent(tmp_path, capsys):
    with RunLog(tmp_path / "run", 0, 10, active=False) as log:
        assert log.row(1, {"loss": 1.0}) == {"step": 1, "loss": 1.0}
        log.say("text")
    assert not (tmp_path / "run").exists() and capsys.readouterr().out == ""


def test_tensorboard_gets_the_metrics(tmp_path):
    event_files = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    with RunLog(tmp_path, 0, 10) as log:
        log.row(1, {"loss": 2.0})
        log.row(2, {"loss": 1.5})
    events = event_files.EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [(event.step, event.value) for event in events.Scalars("loss")] == [(1, 2.0), (2, 1.5)]


def test_sheets_of_images_become_files_and_go_to_tensorboard(tmp_path):
    image = np.full((5, 7, 3), 200, np.uint8)
    with RunLog(tmp_path, 0, 10) as log:
        log.show(3, {"drawn": image})
    assert (np.asarray(Image.open(tmp_path / "samples" / "drawn-00000003.png")) == image).all()
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert events.Tags()["images"] == ["drawn"] and events.Images("drawn")[0].step == 3


def test_rows_and_sheets_go_to_wandb_where_it_is_asked_for(tmp_path, monkeypatch):
    """With a stand-in that notes its calls: the package itself is optional."""
    calls = []
    run = SimpleNamespace(
        log=lambda values, step: calls.append((step, sorted(values))), finish=lambda exit_code: calls.append(exit_code)
    )
    fake = SimpleNamespace(init=lambda **given: calls.append(given) or run, Image=lambda image: ("image", image.shape))
    monkeypatch.setitem(sys.modules, "wandb", fake)
    for _ in range(2):
        with RunLog(tmp_path / "run", 0, 10, tensorboard=False, wandb="mine") as log:
            log.row(1, {"loss": 1.0})
            log.show(1, {"drawn": np.zeros((2, 2, 3), np.uint8)})
    first, second = calls[0], calls[4]
    assert first == second and (first["project"], first["name"]) == ("mine", "run")  # one run, gone on with
    assert first["resume"] == "allow"
    assert calls[1:4] == [(1, ["loss"]), (1, ["drawn"]), 0]
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(UserError, match="pip install wandb"):
        RunLog(tmp_path / "run", 0, 10, wandb="mine")
    RunLog(tmp_path / "other", 0, 10, wandb="mine", active=False)  # other processes need none
