"""Every point of the frontier is possible, its settings reach the engine, and the plot shows all points."""

from __future__ import annotations

from types import SimpleNamespace
from xml.etree import ElementTree

import pytest

from benchmarks import common, sprint_frontier
from benchmarks.sprint_frontier import POINTS, Measured, defaults_of, main, measure, row
from llada_uni.generation.engine import Engine
from llada_uni.generation.params import Sprint
from llada_uni.generation.phases import Phases
from llada_uni.generation.settings import Settings
from llada_uni.tasks.defaults import Defaults
from tests.benchmarks.helpers import tiny_backbone


def test_every_point_gives_possible_settings_to_every_task():
    assert len(POINTS) >= 8 and len({point.name for point in POINTS}) == len(POINTS)
    form = SimpleNamespace(text=SimpleNamespace(mask_id=1))
    for point in POINTS:
        defaults = defaults_of(Defaults(), point)
        for used in (defaults.generate.codes, defaults.edit.codes, defaults.understand.text, defaults.interleave.text):
            settings = Phases(None, form, 100, 10)._settings(used, 64)
            for name in ("rule", "threshold", "confidence", "steps"):
                assert getattr(settings, name) == point.settings.get(name, getattr(used, name))
    published = next(point for point in POINTS if point.name == "SPRINT 0.95")
    assert defaults_of(Defaults(), published).edit.codes.sprint == Sprint(r_text=1.0, r_img=0.8)


def test_a_point_is_measured_and_leaves_the_model_as_it_was(monkeypatch):
    engine, defaults = Engine(tiny_backbone()), Defaults()
    model = SimpleNamespace(parts=SimpleNamespace(engine=engine, defaults=defaults))

    def suites(model, names, limit):
        assert model.parts.defaults.understand.text.rule == "adaptive"
        model.parts.engine.generate([1, 2], Settings(mask_id=31, gen_length=4, block_length=4, steps=2, threshold=1.0))
        return {"suites": {name: {"overall": 0.25} for name in names}}

    monkeypatch.setattr(sprint_frontier, "run_suites", suites)
    measured = measure(model, POINTS[5], ["t2i", "edit"], 1)
    assert measured.score == 0.25 and measured.evaluations == 3 and measured.speed > 0
    assert model.parts.engine is engine and model.parts.defaults is defaults
    assert row(measured, measured).more["loss"] == 0


def test_the_plot_shows_every_point_of_an_earlier_run(tmp_path):
    points = [Measured(point, {"t2i": 0.5 + i / 1000}, 10.0 * (i + 1), 3.0) for i, point in enumerate(POINTS)]
    common.report([row(point, points[0]) for point in points], tmp_path / "rows.json")
    assert main(["--read", str(tmp_path / "rows.json"), "--plot", str(tmp_path / "plot.svg")]) == 0
    circles = ElementTree.parse(tmp_path / "plot.svg").getroot().findall("{http://www.w3.org/2000/svg}circle")
    assert len(circles) == len(POINTS)
    green = [circle for circle in circles if circle.get("fill") == "#208040"]
    assert len(green) == len(POINTS) - 1  # all but the first are twice as fast or more, and better


def test_a_plot_needs_rows(capsys):
    with pytest.raises(SystemExit):
        main(["--plot", "plot.svg"])
    assert "--plot needs --json FILE, or --read FILE" in capsys.readouterr().err
