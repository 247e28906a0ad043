"""The GPU script goes through all its stages on a CPU, with small networks; it refuses what it cannot measure."""

from __future__ import annotations

import json

import pytest
import torch

from benchmarks import h200


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
    assert "step, batch 1" in capsys.readouterr().out


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
