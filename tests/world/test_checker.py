from __future__ import annotations

import json
import random

import numpy as np
import pytest
from PIL import Image

from llada_uni.errors import UserError
from llada_uni.evaluation.intervals import wilson
from llada_uni.world.checker import Checker, disturb, error_rate, false_alarms, main
from llada_uni.world.concepts import CELLS, COLORS, CONCEPTS, STYLES
from llada_uni.world.render import render, render_array
from llada_uni.world.sampling import sample_scene
from llada_uni.world.scene import Thing, placed


@pytest.fixture(scope="module")
def checker() -> Checker:
    return Checker()


def test_every_thing_on_every_color_is_read_in_every_cell(checker: Checker) -> None:
    things = [Thing(c, s) for c in CONCEPTS for s in STYLES]
    for color in COLORS:
        for i in range(0, len(things), 9):
            scene = placed(dict(enumerate(things[i : i + 9])), color)
            reading = checker.read(render(scene))
            assert reading.scene == scene
            assert not any(reading.unknown)
            assert max(reading.error) < 1e-3


@pytest.mark.parametrize("how", [{}, {"noise": 8.0}, {"blur": 1.0}, {"blur": 2.0}, {"shift": 1}], ids=str)
def test_the_short_cut_reads_what_the_long_way_reads(checker: Checker, how: dict) -> None:
    rng, numbers = random.Random(3), np.random.default_rng(3)
    for _ in range(12):
        pixels = disturb(render_array(sample_scene(rng, "any", numbers=0.2)), numbers, **how)
        short, long = checker.read(pixels), checker.read_shifted(pixels)
        assert (short.scene, short.unknown) == (long.scene, long.unknown)


def test_empty_pictures_and_numbers(checker: Checker) -> None:
    empty = placed({}, "pink")
    assert checker.read(render(empty)).scene == empty
    rng = random.Random(0)
    for _ in range(20):
        scene = sample_scene(rng, "any", numbers=1.0)
        assert checker.read(render(scene)).scene.number() == scene.number()


@pytest.mark.parametrize("how", [{"noise": 8.0}, {"noise": 16.0}, {"blur": 1.0}, {"shift": 1}, {"shift": 2}], ids=str)
def test_error_rate_is_low_on_disturbed_pictures(checker: Checker, how: dict) -> None:
    rates = error_rate(40, seed=1, checker=checker, **how)
    assert rates["cells"] <= 0.01
    assert rates["cells_interval"][0] <= rates["cells"] <= rates["cells_interval"][1]


def test_it_says_unknown_rather_than_guess(checker: Checker) -> None:
    alarms = false_alarms(40, seed=2, checker=checker)
    assert alarms["blends"] < 0.10
    assert alarms["blotches"] < 0.05
    noise = np.random.default_rng(0).integers(0, 256, (192, 192, 3), dtype=np.uint8)
    reading = checker.read(noise)
    assert all(reading.unknown)
    assert reading.scene.things() == []


def test_rubbish_on_bare_ground_is_not_nothing(checker: Checker) -> None:
    pixels = np.array(render_array(placed({}, "blue")))
    pixels[20:44, 84:108] = (200, 60, 40)  # a patch in the second cell
    assert checker.read(pixels).unknown == tuple(i == 1 for i in CELLS)


def test_errors_are_counted(checker: Checker) -> None:
    # Heavy blur must show up in the rate: the measurement can fail.
    assert error_rate(10, seed=0, blur=12.0, checker=checker)["cells"] > 0.2


def test_one_wrong_cell_does_not_hide_the_others(checker: Checker) -> None:
    scene = placed({0: Thing("cat", "flat"), 1: Thing("dog", "3d"), 8: Thing("bus", "cartoon")}, "green")
    pixels = render_array(scene)
    pixels[128:, 128:] = np.random.default_rng(1).integers(0, 256, (64, 64, 3))
    reading = checker.read(pixels)
    assert reading.unknown == tuple(i == 8 for i in CELLS)
    assert reading.scene == scene.replace_cell(8, None)
    assert reading.confidence[8] < min(reading.confidence[:8])


@pytest.mark.parametrize("size", [96, 384, 501])
def test_other_sizes_and_modes(checker: Checker, size: int) -> None:
    scene = placed({0: Thing("cat", "cartoon"), 4: Thing("key", "3d"), 8: Thing("7", "flat")}, "blue")
    picture = render(scene, size)
    assert checker.read(picture).scene == scene
    assert checker.read(picture.convert("RGBA")).scene == scene


def test_disturb_is_seeded_and_keeps_the_shape() -> None:
    pixels = render_array(placed({0: Thing("cat", "flat")}, "white"))
    one, two = (disturb(pixels, np.random.default_rng(3), 8.0, 1.0, 2) for _ in range(2))
    assert (one == two).all()
    assert one.shape == pixels.shape and one.dtype == np.uint8
    assert (disturb(pixels, np.random.default_rng(0)) == pixels).all()


def test_command(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--n", "3", "--json"])
    report = json.loads(capsys.readouterr().out)
    assert report["errors"]["clean"]["cells"] == 0.0
    main(["--n", "2"])
    out = capsys.readouterr().out
    assert "noise 16/255" in out and "blended sprites" in out
    with pytest.raises(SystemExit) as stop:
        main(["--n", "0"])
    assert stop.value.code == 2


@pytest.mark.parametrize("size", [0, 93, 128])
def test_bad_sizes(size: int) -> None:
    with pytest.raises(UserError, match="multiple of 3"):
        Checker(size)


def test_wilson() -> None:
    assert wilson(0, 0) == (0.0, 1.0)
    low, high = wilson(8, 10)
    assert (round(low, 4), round(high, 4)) == (0.4902, 0.9433)  # textbook value
    assert wilson(0, 50)[0] == 0.0 and wilson(50, 50)[1] == 1.0


def test_pictures_of_any_shape_are_read_without_failing(checker: Checker) -> None:
    assert checker.read(Image.new("L", (1, 7))).scene.things() == []
