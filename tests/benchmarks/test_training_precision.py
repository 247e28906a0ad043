"""The rows of benchmarks.training_precision, on a small backbone and without waiting for the compiler."""

from __future__ import annotations

import json

from torch import nn

from benchmarks import training_precision
from benchmarks.training_step import Case
from tests.benchmarks.helpers import tiny_backbone


def test_every_pair_has_a_row(tmp_path, monkeypatch):
    compiled: list[nn.Module] = []
    monkeypatch.setattr(nn.Module, "compile", lambda module: compiled.append(module))
    monkeypatch.setattr(training_precision, "CASES", (Case("tiny", tiny_backbone, 2, 6, 8, 4, 64, 1),))
    monkeypatch.setattr(training_precision, "MATRICES", (2, 8, 12))
    assert training_precision.main(["--quick", "--json", str(tmp_path / "rows.json")]) == 0
    rows = json.loads((tmp_path / "rows.json").read_text())["rows"]
    pairs = len(training_precision.PAIRS)
    assert [row["case"].split(":")[0] for row in rows] == ["decoder"] * pairs + ["backbone"] * pairs + ["Muon's iterations"]
    assert all(row["ours"] > 0 and row["ratio"] > 0 for row in rows)
    assert len(compiled) > len(tiny_backbone().model.layers)
