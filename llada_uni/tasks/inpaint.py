"""Filling a masked region of an image from text.

An image -> codes; a mask -> which of them are open; a text-to-image prompt and the codes that stay -> the open codes ->
pixels. A code that stays is never changed; its pixels are decoded again from the same code.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image

from llada_uni.errors import UserError
from llada_uni.generation.guidance import Guidance
from llada_uni.image.arrays import is_array
from llada_uni.image.codes import ImageCodes
from llada_uni.image.geometry import EditingCrop, center
from llada_uni.image.reader import open_image
from llada_uni.requests import Inpaint
from llada_uni.results import ImageResult, OnProgress
from llada_uni.tasks.checks import check_seed, generator_of, open_picture
from llada_uni.tasks.common import Clock, phases_of, settings_of
from llada_uni.tasks.decode import check_decoder, finish
from llada_uni.tasks.familiar import encode_for_change
from llada_uni.tasks.parts import Parts
from llada_uni.tasks.sizes import Sized, drawn_size, shaped_for_editing
from llada_uni.text.prompts import Turn

WHITE = 128  # a mask pixel from this level on is white, that is: to be filled


def inpaint(parts: Parts, request: Inpaint, on_progress: OnProgress | None) -> ImageResult:
    """See `UniModel.inpaint`."""
    seed, settings = check_seed(request.seed), settings_of(request, parts.defaults.generate)
    picture = open_picture(request.image)
    white = _white(request.mask, None if isinstance(picture, ImageCodes) else picture.size)
    check_decoder(parts, request)
    phases, clock = phases_of(parts, request, on_progress), Clock()
    other_size = settings_of(request, parts.defaults).other_size
    shaped = shaped_for_editing(parts, picture, request.fit or parts.defaults.edit.fit, other_size)
    (source,), (unfamiliar,) = encode_for_change(parts, [shaped.image])
    clock.lap("encode")
    is_open = open_cells(white, source.height, source.width, shaped.crop or EditingCrop.none(*white.shape))
    if not is_open.any():
        raise UserError("the mask is white nowhere within the picture: white marks what is to be filled")
    canvas = [None if hole else code for hole, code in zip(is_open.flat, source.codes, strict=True)]
    grid = (source.height, source.width)
    size = Sized(grid, None if shaped.size == drawn_size(parts, grid) else shaped.size)
    form, turns = parts.format, [Turn("user", (request.prompt,))]
    header = form.image_header(*grid)
    guidance = Guidance.of(settings)
    branches = {"uncond": [*form.unconditional("generate", turns), *header]}
    prompt = [*form.prompt("generate", turns), *header]
    drawn = phases.draw(prompt, grid, settings.codes, guidance, branches, generator_of(seed), canvas)
    notices = (*shaped.notices, *unfamiliar)
    return finish(parts, drawn, request, request.prompt, seed, clock, on_progress, notices=notices, size=size)


def _white(mask: Any, size: tuple[int, int] | None) -> np.ndarray:
    """bool [Y, X], True where the mask is white. UserError when its size is not the picture's.

    size: (width, height) of the picture; None where it is given as codes, whose grid is laid over a mask of any size.
    """
    if isinstance(mask, Image.Image) and mask.mode == "1":
        mask = mask.convert("L")
    if isinstance(mask, Image.Image) and "A" in mask.getbands():
        mask = mask.convert("RGBA").convert("RGB")  # transparency says nothing here: the color counts
    if is_array(mask) and _is_ones(mask):
        mask = mask != 0  # a mask as labels: 1 is white
    opened = open_image(mask)
    if size is not None and opened.size != size:
        raise UserError(
            f"the mask has {opened.width} x {opened.height} px, the picture {size[0]} x {size[1]}: they must be equal"
        )
    return np.asarray(opened.convert("L")) >= WHITE


def _is_ones(mask: Any) -> bool:
    """Whether an array holds whole numbers and no other than 0 and 1."""
    whole = mask.dtype.kind in "ui" if isinstance(mask, np.ndarray) else not mask.is_floating_point()
    return whole and bool(((mask == 0) | (mask == 1)).all())


def open_cells(white: np.ndarray, rows: int, columns: int, crop: EditingCrop) -> np.ndarray:
    """bool [rows, columns]: the code cells in which any pixel of `white` [Y, X] lies, after the crop for editing."""
    (height, width), (scaled_h, scaled_w), (target_h, target_w) = crop.size, crop.scaled, crop.target
    top, left = center(scaled_h, target_h), center(scaled_w, target_w)
    out = np.zeros((rows, columns), bool)
    for row in range(rows):
        y0, y1 = _source(top + row * target_h / rows, target_h / rows, height / scaled_h)
        for column in range(columns):
            x0, x1 = _source(left + column * target_w / columns, target_w / columns, width / scaled_w)
            out[row, column] = white[y0:y1, x0:x1].any()
    return out


def _source(start: float, length: float, scale: float) -> tuple[int, int]:
    """First and last + 1 pixel that a stretch of the shaped picture was made of."""
    small = 1e-6
    return int(start * scale + small), int(np.ceil((start + length) * scale - small))
