"""The decoder's benchmarks run through on small models, and their rows say what they should."""

from __future__ import annotations

import json

import pytest

from benchmarks import decoder, decoder_steps
from llada_uni.tasks.parts import find_model


def _rows(path):
    return json.loads(path.read_text())["rows"]


def test_speed_rows(golden, tmp_path):
    assert decoder.main(["--model", str(golden), "--quick", "--side", "2", "--json", str(tmp_path / "rows.json")]) == 0
    rows = _rows(tmp_path / "rows.json")
    assert [row["peer"] for row in rows] == [
        "base, 10 steps", "parts read for every picture", "diffusers' forward", "one by one",
    ]  # fmt: skip
    assert all(row["ratio"] == pytest.approx(row["theirs"] / row["ours"]) and row["unit"] == "s" for row in rows)


def test_quality_rows(tmp_path):
    turbo = find_model(None) / "decoder-turbo"
    arguments = ["--quick", "--limit", "1", "--turbo", f"same={turbo}", "--json", str(tmp_path / "rows.json")]
    assert decoder_steps.main(arguments) == 0
    rows = {(row["case"], row["unit"]): row for row in _rows(tmp_path / "rows.json")}
    assert rows["turbo, 8 steps", "score"]["theirs"] == rows["base, 10 steps", "score"]["ours"]
    assert rows["turbo, 8 steps", "score"]["more"] == rows["same, 8 steps", "score"]["more"]
    assert 20 < rows["turbo, 4 steps", "score"]["more"]["psnr"] < 50


def test_mistakes_are_one_line(tmp_path, capsys):
    assert decoder.main(["--model", str(tmp_path)]) == 2
    assert capsys.readouterr().err.startswith("error: ")
