from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest

from scripts.curves import curves, main, smooth


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


def test_a_picture_of_them(runs, tmp_path, capsys):
    out = tmp_path / "curves.svg"
    assert main([*map(str, runs), "--keys", "acc", "--out", str(out)]) == 0
    drawing = ElementTree.parse(out).getroot()
    lines = [node.get("points").split() for node in drawing.iter("{http://www.w3.org/2000/svg}polyline")]
    assert [len(points) for points in lines] == [3, 3]
    heights = [float(point.split(",")[1]) for point in lines[0]]
    assert heights == sorted(heights, reverse=True), "higher values stand higher"


WRONG = [(["--keys", "nothing"], "no run has logged nothing"), (["gone"], "no log.jsonl in gone")]


@pytest.mark.parametrize(("more", "says"), WRONG)
def test_what_is_not_there(runs, tmp_path, capsys, more, says):
    with pytest.raises(SystemExit):
        main([*map(str, runs), *more, "--out", str(tmp_path / "x.svg")])
    assert says in capsys.readouterr().err and not (tmp_path / "x.svg").exists()
