from __future__ import annotations

import numpy as np
import pytest

from llada_uni.errors import UserError
from llada_uni.world.art import ART_DIR, sprite
from llada_uni.world.concepts import COLORS, CONCEPTS, STYLES
from llada_uni.world.render import cell_mask, cell_pixels, render, render_array
from llada_uni.world.scene import Scene, Thing, placed

CAT = Thing("cat", "cartoon")


def test_every_sprite_is_there_and_drawn() -> None:
    seen = set()
    for style in STYLES:
        for name in CONCEPTS:
            art = np.asarray(sprite(name, style))
            assert art.shape == (64, 64, 4)
            assert (art[..., 3] > 128).mean() > 0.05, (name, style)  # not blank
            seen.add(art.tobytes())
    assert len(seen) == len(STYLES) * len(CONCEPTS)


def test_art_is_attributed() -> None:
    text = (ART_DIR / "ATTRIBUTION.md").read_text()
    for word in ("Apache", "CC-BY", "MIT", "Noto", "Twemoji", "Fluent"):
        assert word.lower() in text.lower(), word


@pytest.mark.parametrize("size", [24, 96, 192])
def test_things_stand_in_their_cells_on_their_color(size: int) -> None:
    scene = placed({1: CAT}, "green")
    pixels, side = render_array(scene, size), size // 3
    assert pixels.shape == (size, size, 3) and pixels.dtype == np.uint8
    assert (pixels[:side, side : 2 * side] == cell_pixels(CAT, "green", side)).all()
    assert (pixels[:side, side : 2 * side] != COLORS["green"]).any()
    assert (pixels[side:] == COLORS["green"]).all() and (pixels[:, :side] == COLORS["green"]).all()
    if size >= 96:  # nothing reaches the border, where there are pixels enough for one
        assert (pixels[0] == COLORS["green"]).all()


def test_render_is_a_picture_and_repeats() -> None:
    scene = Scene((CAT,) * 9, "white")
    picture = render(scene, 192)
    assert (picture.mode, picture.size) == ("RGB", (192, 192))
    assert picture.tobytes() == render(scene, 192).tobytes()
    pixels = render_array(scene, 192)
    pixels[:] = 0  # the caller's own copy: the cache stays as it was
    assert (render_array(scene, 192) != 0).any()


@pytest.mark.parametrize("size", [0, 3, 11])
def test_bad_sizes(size: int) -> None:
    with pytest.raises(UserError, match="at least 12"):
        render_array(placed({}, "white"), size)


def test_unknown_sprites() -> None:
    with pytest.raises(UserError, match="zebra"):
        sprite("zebra", "flat")
    with pytest.raises(UserError, match="oil"):
        sprite("cat", "oil")


def test_sides_that_do_not_divide_into_cells_are_scaled_to() -> None:
    scene = placed({0: CAT}, "pink")
    small, full = render_array(scene, 64), render_array(scene, 66)
    assert small.shape == (64, 64, 3) and (small[32:, 32:] == COLORS["pink"]).all()
    assert abs(small.mean() - full.mean()) < 2


def test_the_mask_covers_just_its_cells() -> None:
    mask = np.asarray(cell_mask([0, 5], 12))
    wanted = np.zeros((12, 12))
    wanted[:4, :4] = wanted[4:8, 8:] = 255
    assert (mask == wanted).all()
