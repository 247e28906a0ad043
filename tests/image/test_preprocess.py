"""Sizes and pixels: equal to the recorded ones, and sensible between them."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageChops

from llada_uni.errors import UserError
from llada_uni.image.geometry import Preprocessing, editing_size, editing_sizes, understanding_crop, understanding_size
from llada_uni.image.preprocess import crop_for_editing, resize_for_understanding, to_patches
from llada_uni.image.reader import open_image

RELEASED = Preprocessing()


@pytest.fixture(scope="module")
def recorded(golden):
    return json.loads((golden / "resize.json").read_text())


def test_recorded_understanding_sizes(recorded):
    assert len(recorded["sizes"]) >= 20
    for entry in recorded["sizes"]:
        h, w = entry["height"], entry["width"]
        for name, alone, most in (
            ("single", True, RELEASED.understand_max_pixels),
            ("multi", False, RELEASED.understand_max_pixels_multi),
        ):
            size = understanding_size(h, w, 32, RELEASED.understand_min_pixels, most)
            assert list(size) == entry[f"understand_{name}"], entry
            assert list(understanding_crop(h, w, alone, RELEASED)[1]) == entry[f"{name}_after_crop"], entry


def test_recorded_editing_sizes(recorded):
    assert [list(size) for size in editing_sizes(256, 32)] == recorded["edit_crop_sizes_wh"]
    for entry in recorded["sizes"]:
        assert list(editing_size(entry["height"], entry["width"], 256, 32)) == entry["edit_after_crop"], entry


def test_recorded_pictures_pixel_for_pixel(golden):
    numbers = json.loads((golden / "crop.json").read_text())
    picture = open_image(golden / "crop_input.png")
    understand = Preprocessing(
        size_factor=numbers["understand"]["factor"],
        understand_min_pixels=numbers["understand"]["min_pixels"],
        understand_max_pixels=numbers["understand"]["max_pixels"],
    )
    edit = Preprocessing(size_factor=numbers["edit"]["patch"], edit_max_cells=numbers["edit"]["num_patches"])
    for found, name in (
        (resize_for_understanding(picture, True, understand), "crop_understand_output.png"),
        (crop_for_editing(picture, edit), "crop_edit_output.png"),
    ):
        expected = Image.open(golden / name).convert("RGB")
        assert found.size == expected.size
        assert ImageChops.difference(found, expected).getbbox() is None


@settings(deadline=None, max_examples=200)
@given(st.integers(2, 4000), st.integers(2, 4000), st.booleans())
def test_understanding_crop_fits_into_what_was_scaled(height, width, alone):
    scaled, crop = understanding_crop(height, width, alone, RELEASED)
    assert all(side % 32 == 0 and side >= 32 for side in crop)
    assert all(have >= want for have, want in zip(scaled, crop, strict=True))


@pytest.mark.parametrize("side", [2, 40, 64, 83, 100, 128, 130, 512, 1023])
def test_limits_with_slack_make_every_square_one_size(side):
    small = Preprocessing(
        understand_min_pixels=4000,
        understand_max_pixels=4200,
        understand_max_pixels_multi=4200,
        edit_max_cells=4,
    )
    square = Image.new("RGB", (side, side))
    assert resize_for_understanding(square, True, small).size == (64, 64)
    assert resize_for_understanding(square, False, small).size == (64, 64)
    assert crop_for_editing(square, small).size == (64, 64)


def test_edit_scale_shows_the_whole_picture():
    picture = Image.new("RGB", (128, 128), "red")
    picture.paste("blue", (0, 0, 64, 128))
    cropped = crop_for_editing(picture, Preprocessing(edit_max_cells=4))
    scaled = crop_for_editing(picture, Preprocessing(edit_max_cells=4, edit_scale=True))
    assert cropped.size == scaled.size == (64, 64)
    # The middle of the scene: both show the border in their middle, but only the scaled one keeps the
    # proportions.
    assert cropped.getpixel((0, 0)) == scaled.getpixel((0, 0)) == (0, 0, 255)
    assert crop_for_editing(_dot(128), Preprocessing(edit_max_cells=4)).getextrema() == ((0, 0),) * 3
    assert (
        crop_for_editing(_dot(128), Preprocessing(edit_max_cells=4, edit_scale=True)).getextrema()
        != ((0, 0),) * 3
    )


def _dot(side: int) -> Image.Image:
    picture = Image.new("RGB", (side, side))
    picture.paste("white", (0, 0, 8, 8))
    return picture


def test_patches_are_in_raster_order_and_normalized():
    pixels = np.zeros((4, 6, 3), np.uint8)
    pixels[0, 2] = (255, 128, 0)  # first pixel of the second patch
    patches, rows, columns = to_patches(Image.fromarray(pixels), Preprocessing(patch_size=2))
    assert (rows, columns, tuple(patches.shape)) == (2, 3, (6, 12))
    assert patches[1].view(3, 2, 2)[:, 0, 0].tolist() == pytest.approx([1.0, 128 / 127.5 - 1, -1.0], abs=1e-6)
    assert patches[0].unique().tolist() == [-1.0]


def test_patches_refuse_other_sizes():
    with pytest.raises(UserError, match="does not divide into patches of 16 px"):
        to_patches(Image.new("RGB", (17, 16)), RELEASED)


def test_settings_round_trip_and_defaults(golden):
    file = json.loads((golden / "image_tokenizer" / "preprocessor_config.json").read_text())
    read = Preprocessing.from_json(file)
    assert (read.patch_size, read.understand_max_pixels, read.edit_max_cells) == (8, 640000, 256)
    assert Preprocessing.from_json(read.to_json()) == read
    assert set(file) <= set(read.to_json())


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({}, 'lacks the field "patch_size"'),
        ({"patch_size": 0}, '"patch_size" must be a number above 0'),
        ({"patch_size": 16, "size_factor": 24}, "no multiple of patch_size"),
    ],
)
def test_settings_refuse(data, words):
    with pytest.raises(UserError, match=words):
        Preprocessing.from_json(data)
