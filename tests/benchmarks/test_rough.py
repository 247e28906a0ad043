"""The program of bad clients, on the tiny model: every request under way is told of, nothing is left behind."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.tiny_model import make_tiny_model

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_a_server_outlives_bad_clients(tmp_path: Path, golden: Path) -> None:
    model = make_tiny_model(tmp_path / "tiny", golden)
    told = tmp_path / "told.json"
    options = ["--model", str(model), "--clients", "6", "--gone", "30", "--json", str(told)]
    subprocess.run([sys.executable, "-m", "benchmarks.rough", *options], cwd=ROOT, check=True, timeout=900)
    seen = json.loads(told.read_text(encoding="utf-8"))
    assert seen["clients"]["ended"] == {"200": 6} and seen["clients"]["jobs_left"] == 0
    assert seen["gone"]["jobs_left"] == 0 and seen["gone"]["same_bytes"]
    assert seen["stopped"]["exit"] == 0 and set(seen["stopped"]["ended"]) <= {"200", "503"}
    assert sum(seen["killed"]["ended"].values()) == 8 and seen["last"]["answers"]
