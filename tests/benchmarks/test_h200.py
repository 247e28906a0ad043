"""The GPU script goes through all its stages on a CPU, with small networks; it refuses what it cannot measure."""

from __future__ import annotations

import json

import pytest
import torch

from benchmarks import h200
from benchmarks.common import Row


def test_every_stage_runs_small(tmp_path, capsys):
    file = tmp_path / "rows.json"
    assert h200.main(["--device", "cpu", "--tiny", "--json", str(file)]) == 0
    rows = {row["case"]: row for row in json.loads(file.read_text())["rows"]}
    assert rows["backbone logits, small"]["ours"] < 1e-5
    assert rows["decoder velocity, small"]["ours"] < 1e-5
    for batch in (1, 2):
        steps = [rows[f"step, batch {batch}, {way}"] for way in ("eager", "fixed shape")]
        assert all(step["unit"] == "ms" and step["ours"] > 0 for step in steps)
        speed = rows[f"batch {batch}, 4 accepted a step"]["ours"]
        assert speed == pytest.approx(batch * 4 / min(step["ours"] for step in steps) * 1000)
        assert rows[f"answers of 32, batch {batch}"]["ours"] > 0
    assert {"picture 64x64, turbo, 2 steps", "picture 64x64, base, 2 steps"} <= set(rows)
    paths = ("grouped products", "int8 experts", "int4 experts", "float8 experts", "FlexAttention", "collective of one process")
    assert {f"{path}, small" for path in paths} | {"CUDA graph, small"} <= set(rows)
    assert "step, batch 1" in capsys.readouterr().out


def test_a_finished_part_is_not_run_again_and_a_failed_one_is(tmp_path, monkeypatch, capsys):
    file, run = tmp_path / "rows.json", []

    def part(name, *_):
        run.append(name)
        yield Row(f"a row of {name}", "", "s", 1.0)
        if name == "steps" and run.count(name) == 1:
            raise RuntimeError("out of memory")

    monkeypatch.setattr(h200, "rows_of", part)
    arguments = ["--device", "cpu", "--tiny", "--json", str(file)]
    assert h200.main(arguments) == 1 and run == list(h200.PARTS)
    assert "part steps, tiny: out of memory" in capsys.readouterr().out
    assert h200.main(arguments) == 0 and run == [*h200.PARTS, "steps"]
    cases = [row["case"] for row in json.loads(file.read_text())["rows"]]
    order = [*(name for name in h200.PARTS if name != "steps"), "steps"]
    assert cases == [case for name in order for case in (f"a row of {name}", f"part {name}, tiny")]


def test_a_part_stops_after_its_time(monkeypatch, capsys):
    monkeypatch.setattr(h200, "PARTS", {"correctness": -1.0})
    monkeypatch.setattr(h200, "rows_of", lambda *_: iter([Row("one", "", "s", 1.0), Row("two", "", "s", 1.0)]))
    assert h200.main(["--device", "cpu", "--tiny"]) == 1
    said = capsys.readouterr().out
    assert "one" in said and "two" not in said and "stopped after" in said


def test_the_steps_leave_the_prefix_as_it_was():
    model = h200.make_backbone(h200.tiny_backbone_config(), torch.device("cpu"), torch.float32)
    step = h200.step_of(model, 2, h200.PREFIX, h200.BLOCK)
    first = step()
    assert first.shape == (2, h200.BLOCK)
    assert torch.equal(first, step())
    _, step = h200.static_step(model, 2)
    drafts, confidence = step()
    assert drafts.shape == (2, h200.BLOCK) and confidence.min() > 0
    assert torch.equal(drafts, step()[0])


@pytest.mark.skipif(torch.cuda.is_available(), reason="asks what happens without a GPU")
def test_without_a_gpu(capsys):
    assert h200.main([]) == 2
    assert "there is no GPU here" in capsys.readouterr().err
    assert h200.main(["--device", "cpu"]) == 2
    assert "the full sizes need a GPU, not cpu" in capsys.readouterr().err
