"""How an image is fitted to the grid of an edit, and that the mask of inpainting follows the same geometry."""

from __future__ import annotations

import random

import numpy as np
import pytest
from PIL import Image

from llada_uni.errors import UserError
from llada_uni.image.geometry import Preprocessing, editing_crop
from llada_uni.image.preprocess import crop_for_editing
from llada_uni.tasks.inpaint import open_cells

RELEASED = Preprocessing()


def test_crop_is_the_published_rule_and_keeps_little_of_a_photo():
    crop = editing_crop(3000, 4000, RELEASED, "crop")
    assert (crop.scaled, crop.target, crop.resized) == ((3000, 4000), (448, 576), False)
    assert crop.target[0] * crop.target[1] / (3000 * 4000) < 0.022


@pytest.mark.parametrize("fit", ["resize", "auto"])
def test_resize_shows_nearly_all_of_it(fit):
    crop = editing_crop(3000, 4000, RELEASED, fit)
    assert crop.resized and crop.large and "4000 x 3000 px" in crop.notice and "fit=crop" in crop.notice
    assert crop.target[0] * crop.target[1] / (crop.scaled[0] * crop.scaled[1]) > 0.95


def test_auto_changes_nothing_up_to_twice_the_grid():
    for height, width in ((512, 512), (1024, 1024), (100, 60)):
        assert not editing_crop(height, width, RELEASED, "auto").resized
    assert editing_crop(1025, 1024, RELEASED, "auto").resized
    assert not editing_crop(1025, 1024, RELEASED, None).resized  # the published rule, for recorded numbers and training


def test_a_model_trained_on_scaled_images_scales_unless_told():
    own = Preprocessing(edit_scale=True)
    assert all(editing_crop(600, 600, own, fit).resized for fit in (None, "auto", "resize"))
    assert not editing_crop(600, 600, own, "crop").resized
    with pytest.raises(UserError, match="fit must be one of auto, crop, resize, not 'stretch'"):
        editing_crop(600, 600, own, "stretch")


@pytest.mark.parametrize("fit", ["crop", "resize", "auto"])
def test_the_mask_follows_the_image(fit):
    """Cells that are mostly white after the image's own fitting are open; cells far from any white stay."""
    rng = random.Random(fit)
    settings = Preprocessing(edit_max_cells=16)
    for _ in range(40):
        height, width = rng.randint(40, 700), rng.randint(40, 700)
        mask = np.zeros((height, width), np.uint8)
        top, left = rng.randrange(height), rng.randrange(width)
        mask[top : top + rng.randint(1, 200), left : left + rng.randint(1, 200)] = 255
        crop = editing_crop(height, width, settings, fit)
        fitted = np.asarray(crop_for_editing(Image.fromarray(mask).convert("RGB"), settings, fit).convert("L"))
        assert fitted.shape == crop.target
        rows, columns = crop.target[0] // 16, crop.target[1] // 16
        found = open_cells(mask >= 128, rows, columns, crop)
        white = fitted.reshape(rows, 16, columns, 16).transpose(0, 2, 1, 3) >= 128
        assert not (white.any((2, 3)) & ~found).any(), (height, width, fit)
        if not crop.resized:
            assert (white.any((2, 3)) == found).all(), (height, width, fit)
