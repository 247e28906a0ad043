"""The command that compares oracle and engine runs, and says what it measured."""

from __future__ import annotations

import json

from benchmarks import engine_vs_oracle


def test_a_small_comparison(tmp_path, capsys):
    file = tmp_path / "row.json"
    assert engine_vs_oracle.main(["--codes", "48", "--steps", "4", "--json", str(file)]) == 0
    row = json.loads(file.read_text())
    assert row["same_tokens"] and row["codes"] == 48 and row["ratio"] > 0
    # 48 codes behind 40 prompt tokens: 24 + 24 places in two blocks, 8 or more a step
    assert row["oracle"]["evaluations"] == row["engine"]["evaluations"] == 6
    assert "same tokens" in capsys.readouterr().out


def test_a_directory_without_a_model_is_a_clear_error(tmp_path, capsys):
    assert engine_vs_oracle.main(["--model", str(tmp_path)]) == 2
    assert capsys.readouterr().err.startswith("error: ")
