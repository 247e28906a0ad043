"""Every point of the frontier is possible, its settings reach the engine, and the plot shows all points."""

from __future__ import annotations

from types import SimpleNamespace
from xml.etree import ElementTree

from benchmarks import sprint_frontier
from benchmarks.sprint_frontier import POINTS, Measured, defaults_of, measure, plot, row
from llada_uni.generation.engine import Engine
from llada_uni.generation.interleave import Phases
from llada_uni.generation.settings import Settings
from llada_uni.generation.sprint import Sprint
from llada_uni.tasks.common import sampling_of
from llada_uni.tasks.defaults import Defaults
from tests.benchmarks.helpers import tiny_backbone


def test_every_point_gives_possible_settings_to_every_task():
    assert len(POINTS) >= 8 and len({point.name for point in POINTS}) == len(POINTS)
    form = SimpleNamespace(text=SimpleNamespace(mask_id=1))
    for point in POINTS:
        defaults = defaults_of(Defaults(), point)
        for used in (defaults.generate.codes, defaults.edit.codes, defaults.understand.text, defaults.interleave.text):
            settings = Phases(None, form, 100, 10)._settings(sampling_of(used), 64)
            for name in ("rule", "threshold", "confidence", "steps"):
                assert getattr(settings, name) == point.settings.get(name, getattr(used, name))
    assert defaults_of(Defaults(), POINTS[4]).edit.codes.sprint == Sprint(r_text=1.0, r_img=0.8)


def test_a_point_is_measured_and_leaves_the_model_as_it_was(monkeypatch):
    engine, defaults = Engine(tiny_backbone()), Defaults()
    model = SimpleNamespace(parts=SimpleNamespace(engine=engine, defaults=defaults))

    def suites(model, names, limit):
        assert model.parts.defaults.understand.text.rule == "adaptive"
        model.parts.engine.generate([1, 2], Settings(mask_id=31, gen_length=4, block_length=4, steps=2, threshold=1.0))
        return {"suites": {name: {"overall": 0.25} for name in names}}

    monkeypatch.setattr(sprint_frontier, "run_suites", suites)
    measured = measure(model, POINTS[3], ["t2i", "edit"], 1)
    assert measured.score == 0.25 and measured.evaluations == 3 and measured.speed > 0
    assert model.parts.engine is engine and model.parts.defaults is defaults
    assert row(measured, measured).more["loss"] == 0


def test_the_plot_shows_every_point():
    points = [Measured(point, {"t2i": 0.5 + i / 100}, 10.0 * (i + 1), 3.0) for i, point in enumerate(POINTS)]
    root = ElementTree.fromstring(plot(points))
    assert len(root.findall("{http://www.w3.org/2000/svg}circle")) == len(POINTS)
