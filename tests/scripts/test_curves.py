from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest

from scripts.curves import curves, draw, main, smooth


def run(folder: Path, rows: list[dict[str, float]]) -> Path:
    folder.mkdir()
    (folder / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@pytest.fixture
def runs(tmp_path) -> list[Path]:
    first = [{"step": 1, "loss": 2.0, "acc": 0.1}, {"step": 2, "loss": 1.5, "acc": 0.2}, {"step": 2, "eval/x": 0.3}]
    resumed = [{"step": 1, "loss": 9.0, "acc": 0.9}, {"step": 1, "loss": 1.0, "acc": 0.4}]
    return [run(tmp_path / "s0", first), run(tmp_path / "s1", resumed)]


def test_runs_follow_one_another_and_the_later_row_counts(runs):
    found, begins = curves(runs, ["acc", "loss"])
    assert found == {"acc": [(1, 0.1), (2, 0.2), (3, 0.4)], "loss": [(1, 2.0), (2, 1.5), (3, 1.0)]}
    assert begins == [(0, "s0"), (2, "s1")]
    assert smooth(found["acc"])[-1] == (3, pytest.approx(0.7 / 3))
    assert smooth(found["acc"], 2)[-1] == (3, pytest.approx(0.3))


def test_rows_of_evaluations_are_read_and_a_key_may_have_a_name(runs, tmp_path):
    assert curves(runs, ["acc", "eval/x"])[0]["eval/x"] == [(2, 0.3)]
    file = tmp_path / "named.svg"
    assert main([*map(str, runs), "--keys", "acc=right,eval/x=held out", "--window", "2", "--out", str(file)]) == 0
    assert "held out" in file.read_text()  # matplotlib writes texts as a comment beside their outlines


def test_thin_lines_are_the_values_thick_ones_their_means(runs):
    axes = draw(*curves(runs, ["acc"])).axes[0]
    values, means, *borders = axes.get_lines()
    assert values.get_ydata().tolist() == [0.1, 0.2, 0.4] and values.get_linewidth() < means.get_linewidth()
    assert means.get_ydata().tolist() == pytest.approx([0.1, 0.15, 0.7 / 3]) and axes.get_ylim() == (0, 1)
    assert [text.get_text() for text in axes.texts] == ["s0", "s1"] and len(borders) == 2


def test_the_file_is_a_drawing_and_the_same_again(runs, tmp_path):
    files = [tmp_path / "one.svg", tmp_path / "two.svg"]
    for file in files:
        assert main([*map(str, runs), "--keys", "acc,loss", "--out", str(file)]) == 0
    assert ElementTree.parse(files[0]).getroot().tag.endswith("svg") and files[0].read_bytes() == files[1].read_bytes()


WRONG = [(["--keys", "nothing"], "no run has logged nothing"), (["gone"], "no log.jsonl in gone")]


@pytest.mark.parametrize(("more", "says"), WRONG)
def test_what_is_not_there(runs, tmp_path, capsys, more, says):
    with pytest.raises(SystemExit):
        main([*map(str, runs), *more, "--out", str(tmp_path / "x.svg")])
    assert says in capsys.readouterr().err and not (tmp_path / "x.svg").exists()
