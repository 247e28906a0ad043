"""Scenes to pixels. A cell is a square a third of the picture wide with its sprite in the middle.

`cell_pixels` is cached, so a picture is nine array copies; training renders thousands a second.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw

from llada_uni.errors import UserError
from llada_uni.world.art import sprite
from llada_uni.world.concepts import COLORS, SIDE
from llada_uni.world.scene import Scene, Thing

PIXELS = 192
"""Side of the pictures that the model draws."""

_FILL = 0.84  # side of the sprite over side of the cell


@lru_cache(maxsize=16384)
def cell_pixels(thing: Thing | None, color: str, side: int) -> np.ndarray:
    """One cell: uint8 [side, side, 3] (do not write into it: it is cached)."""
    cell = Image.new("RGB", (side, side), COLORS[color])
    if thing is not None:
        width = round(side * _FILL)
        art = sprite(thing.concept, thing.style)
        # Resizing with premultiplied alpha keeps transparent pixels' color from bleeding in.
        art = art.convert("RGBa").resize((width, width), Image.Resampling.LANCZOS).convert("RGBA")
        cell.paste(art, ((side - width) // 2, (side - width) // 2), art)
    pixels = np.asarray(cell)
    pixels.setflags(write=False)
    return pixels


def render_array(scene: Scene, size: int = PIXELS) -> np.ndarray:
    """The scene as uint8 [size, size, 3]; a `size` that is no multiple of 3 is scaled to. At least 12 (UserError)."""
    if size < 4 * SIDE:
        raise UserError(f"a picture's side must be at least {4 * SIDE}, asked for {size}")
    if size % SIDE:
        larger = Image.fromarray(render_array(scene, size + SIDE - size % SIDE))
        return np.array(larger.resize((size, size), Image.Resampling.BICUBIC))
    cell = size // SIDE
    out = np.empty((size, size, 3), np.uint8)
    for i, thing in enumerate(scene.cells):
        y, x = (i // SIDE) * cell, (i % SIDE) * cell
        out[y : y + cell, x : x + cell] = cell_pixels(thing, scene.background, cell)
    return out


def render(scene: Scene, size: int = PIXELS) -> Image.Image:
    """The scene as an RGB picture of size x size."""
    return Image.fromarray(render_array(scene, size))


def cell_mask(cells: Iterable[int], size: int) -> Image.Image:
    """Mask for inpainting, mode "L": 255 where the image is to be drawn again, 0 where it stays."""
    mask = Image.new("L", (size, size), 0)
    side = size // SIDE
    for cell in cells:
        y, x = (cell // SIDE) * side, (cell % SIDE) * side
        ImageDraw.Draw(mask).rectangle((x, y, x + side - 1, y + side - 1), fill=255)
    return mask
