"""Scenes to pixels. A cell is a square half the picture wide with its sprite in the middle.

`cell_pixels` is cached, so a picture is four array copies; training renders thousands a second.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from PIL import Image

from llada_uni.errors import UserError
from llada_uni.world.art import sprite
from llada_uni.world.concepts import COLORS
from llada_uni.world.scene import Scene, Thing

_FILL = 0.82  # side of the sprite over side of the cell


@lru_cache(maxsize=8192)
def cell_pixels(thing: Thing | None, color: str, side: int) -> np.ndarray:
    """One cell: uint8 [side, side, 3] (do not write into it: it is cached)."""
    cell = Image.new("RGB", (side, side), COLORS[color])
    if thing is not None:
        width = round(side * _FILL)
        art = sprite(thing.concept, thing.style)
        # Resizing with premultiplied alpha keeps transparent pixels' colour from bleeding in.
        art = art.convert("RGBa").resize((width, width), Image.Resampling.LANCZOS).convert("RGBA")
        cell.paste(art, ((side - width) // 2, (side - width) // 2), art)
    pixels = np.asarray(cell)
    pixels.setflags(write=False)
    return pixels


def render_array(scene: Scene, size: int = 128) -> np.ndarray:
    """The scene as uint8 [size, size, 3]. `size` must be even and at least 16 (UserError)."""
    if size < 16 or size % 2:
        raise UserError(f"a picture's side must be even and at least 16, asked for {size}")
    half = size // 2
    out = np.empty((size, size, 3), np.uint8)
    for i, thing in enumerate(scene.cells):
        y, x = (i // 2) * half, (i % 2) * half
        out[y : y + half, x : x + half] = cell_pixels(thing, scene.color_of(i), half)
    return out


def render(scene: Scene, size: int = 128) -> Image.Image:
    """The scene as an RGB picture of size x size."""
    return Image.fromarray(render_array(scene, size))
