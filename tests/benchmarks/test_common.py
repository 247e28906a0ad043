"""What the benchmarks share: alternating runs, peak memory, the report, and the floor of a step."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from benchmarks import common
from benchmarks.common import Row
from benchmarks.floor import Step, busy_experts, floor_seconds, step_bytes, step_flops
from tests.backbone.helpers import small_config


def test_both_sides_take_turns():
    calls = []
    ours, theirs = common.alternate(lambda: calls.append("ours"), lambda: calls.append("theirs"), 3)
    assert calls == ["ours", "theirs"] * 3 and ours >= 0 and theirs >= 0


def test_peak_memory_sees_what_was_freed_again():
    """In a process of its own: what other tests leave behind may be freed at any time."""
    program = """
import time
import numpy as np
from benchmarks.common import PeakMemory
with PeakMemory() as memory:
    block = np.ones(40 * 2**20, np.uint8)
    time.sleep(0.5)
    del block
print(memory.bytes)
"""
    found = int(subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout)
    assert 30 * 2**20 < found < 200 * 2**20


def test_the_report_is_a_table_and_a_file(tmp_path, capsys):
    rows = [Row("a case", "a peer", "ms", 1.5, 3.0, 2.0, {"evaluations": 7}), Row("alone", "", "", 0.25)]
    common.report(rows, tmp_path / "rows.json")
    lines = capsys.readouterr().out.splitlines()
    assert lines[2].split() == ["a", "case", "a", "peer", "ms", "1.5", "3", "2.00x", "evaluations", "7"]
    written = json.loads((tmp_path / "rows.json").read_text())
    assert written["rows"][0]["ratio"] == 2.0 and written["rows"][1]["theirs"] is None
    assert written["machine"]["threads"] >= 1


def test_the_floor_counts_what_a_step_touches():
    """Every weight of a network whose experts are all busy, once; every product twice its size."""
    from llada_uni.backbone import Backbone

    config = small_config()
    model = Backbone(config)
    skipped = sum(p.numel() for p in model.parameters() if p.dim() == 1) + model.model.word_embeddings.weight.numel()
    step = Step(rows=1, block=10_000, prefix=0, choices=config.vocab_size)
    assert step_bytes(config, step) == pytest.approx(4 * (common.parameters_of(model) - skipped))
    one = Step(rows=1, block=1, prefix=100, choices=40)
    more = Step(rows=1, block=1, prefix=200, choices=40)
    assert step_flops(config, more) - step_flops(config, one) == 2 * 2 * 2 * 4 * 8 * 100  # layers, products, heads, features
    assert busy_experts(8, 2, 1) == pytest.approx(2) and busy_experts(8, 2, 1000) == pytest.approx(8)
    assert floor_seconds(config, one, 1.0, 1e30) == step_bytes(config, one)
    assert floor_seconds(config, one, 1e30, 1.0) == step_flops(config, one)
