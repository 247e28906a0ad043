"""Every point of the frontier is possible; what is measured is kept, not measured again, and drawn with its intervals."""

from __future__ import annotations

import json
from types import SimpleNamespace
from xml.etree import ElementTree

import pytest

from benchmarks import frontier
from benchmarks.frontier import POINTS, Store, main, row
from benchmarks.sprint_frontier import defaults_of
from llada_uni.errors import UserError
from llada_uni.tasks.defaults import Defaults


def test_every_point_gives_possible_settings_to_every_task():
    assert len({point.name for point in POINTS}) == len(POINTS)
    for point in POINTS:
        codes = defaults_of(Defaults(), point).generate.codes
        for name, value in point.settings.items():
            assert getattr(codes, name) == value
    speed = next(point for point in POINTS if point.name == "t2t speed")
    codes = defaults_of(Defaults(), speed).generate.codes
    assert (codes.rule, codes.threshold, codes.edit_bound) == ("t2t", 0.5, 0.0)


def test_a_run_goes_on_from_its_store(tmp_path, monkeypatch, capsys):
    asked = []

    def measure(model, point, suite, limit, seed):
        asked.append((point.name, suite))
        score = 0.5 if point is POINTS[0] else 0.75
        return {
            "score": score,
            "interval": [score - 0.1, score + 0.1],
            "n": limit,
            "generations": 4,
            "evaluations": 8,
            "seconds": 1,
        }

    monkeypatch.setattr(frontier, "measure", measure)
    monkeypatch.setattr("llada_uni.model.UniModel.from_pretrained", lambda name: SimpleNamespace())
    call = ["--store", str(tmp_path / "s.json"), "--limit", "100", "--suites", "edit,wise", "--points", "directory"]
    assert main([*call, "--plot", str(tmp_path / "p.svg"), "--json", str(tmp_path / "rows.json")]) == 0
    assert asked == [("threshold 0.95", "edit"), ("threshold 0.95", "wise"), ("directory", "edit"), ("directory", "wise")]
    assert main([*call[:-1], "directory;adaptive 0.7"]) == 0
    assert asked[4:] == [("adaptive 0.7", "edit"), ("adaptive 0.7", "wise")]
    rows = json.loads((tmp_path / "rows.json").read_text())["rows"]
    assert [one["more"]["loss"] for one in rows] == [0, -0.25] and rows[1]["ratio"] == 1
    assert rows[1]["more"]["low"] == pytest.approx(0.75 - 0.1 / 2**0.5)  # two independent suites
    drawn = ElementTree.parse(tmp_path / "p.svg").getroot()
    assert len(drawn.findall("{http://www.w3.org/2000/svg}circle")) == 2
    with pytest.raises(UserError, match="give another file"):
        Store(tmp_path / "s.json", {"limit": 7, "seed": 51})
    with pytest.raises(SystemExit):
        main([*call[:-1], "nothing"])
    assert "unknown point 'nothing'" in capsys.readouterr().err


def test_a_point_whose_settings_changed_is_measured_again(tmp_path):
    store = Store(tmp_path / "s.json", {})
    store.put(POINTS[0], "edit", {"score": 1.0})
    assert Store(tmp_path / "s.json", {}).get(POINTS[0], "edit") == {"score": 1.0}
    changed = frontier.Point(POINTS[0].name, {"steps": 3})
    assert store.get(changed, "edit") is None


def test_an_interval_stays_between_0_and_1():
    found = {"edit": {"score": 0.0, "interval": [-0.1, 0.1], "n": 9, "generations": 1, "evaluations": 3}}
    assert row(POINTS[0], found, found).more["low"] == 0.0
