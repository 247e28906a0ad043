"""Sizes that a model was trained for, and what becomes of others: drawn at a trained size and scaled, refused, or as asked.

A directory names its sizes in `generation_config.json` ("sizes": ["192x192"], width x height in pixels); one that names none
draws every size. A size asked for, or that of an image to be changed -> `Sized`: the grid that is drawn, and the pixels that
the result is scaled to. Scaling keeps all of an image and not its shape: what stands in a corner stays there, and an image
that was squeezed to be changed is stretched back by the same.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from PIL import Image

from llada_uni.errors import UserError
from llada_uni.image.codes import ImageCodes
from llada_uni.image.geometry import EditingCrop, editing_crop
from llada_uni.image.preprocess import crop_for_editing
from llada_uni.image.reader import MAX_AREA
from llada_uni.tasks.checks import check_grid
from llada_uni.tasks.parts import Parts

Size = tuple[int, int]  # height, width in pixels


@dataclass(frozen=True)
class Sized:
    """grid: (rows, columns) of codes that are drawn; pixels: (height, width) that the image is scaled to, None: as it is drawn.

    notices: what a person should know who asked for another size.
    """

    grid: tuple[int, int]
    pixels: Size | None = None
    notices: tuple[str, ...] = ()

    def scaled(self, image: Image.Image, multiplier: int) -> Image.Image:
        """The decoded image in the size asked for. multiplier: `resolution_multiplier`, where 2 is as asked for."""
        if self.pixels is None:
            return image
        height, width = (max(1, round(side * multiplier / 2)) for side in self.pixels)
        return image.resize((width, height), Image.Resampling.LANCZOS)


def sized(parts: Parts, height: int, width: int, other_size: str) -> Sized:
    """How an image of a size comes about. other_size: `params.OTHER_SIZES`. UserError for a size that is not possible."""
    size, cell = (height, width), parts.pixels_per_code
    native = nearest(parts, size)
    if size == native or other_size == "draw":
        return Sized(check_grid(height, width, cell))
    if other_size == "refuse":
        raise _refused(parts, size)
    if height * width > MAX_AREA:
        raise UserError(f"an image of {_named(size)} px is too large; allowed: {MAX_AREA // 2**20} megapixels (2^20 px each)")
    notice = f"this model was trained for {named_sizes(parts)} px: drawn at {_named(native)} and scaled to {_named(size)}"
    return Sized(check_grid(*native, cell), size, (notice,))


def nearest(parts: Parts, size: Size) -> Size:
    """The trained size of the nearest shape, then of the nearest area; the size itself where the directory names none."""
    trained = parts.defaults.trained_sizes

    def distance(one: Size) -> tuple[float, float]:
        return (
            round(abs(math.log(one[0] / one[1] * size[1] / size[0])), 6),
            abs(math.log(one[0] * one[1] / (size[0] * size[1]))),
        )

    return min(trained, key=distance) if trained and size not in trained else size


def named_sizes(parts: Parts) -> str:
    """The trained sizes in words."""
    return ", ".join(parts.defaults.sizes)


def _named(size: Size) -> str:
    return f"{size[1]} x {size[0]}"


def _refused(parts: Parts, size: Size) -> UserError:
    return UserError(
        f"this model was not trained for {_named(size)} px; allowed: {named_sizes(parts)}, or other_size 'scale' (drawn at a "
        "trained size and scaled) or 'draw' (as asked for)"
    )


# --- images that are changed ---


@dataclass(frozen=True)
class Shaped:
    """An image as an edit reads it. crop: how it was brought there; size: of the edited image where no other is asked for."""

    image: Image.Image | ImageCodes
    crop: EditingCrop | None
    size: Size
    notices: tuple[str, ...] = ()


def shaped_for_editing(parts: Parts, image: Image.Image | ImageCodes, fit: str, other_size: str) -> Shaped:
    """An image on the grid of an edit (`image.geometry.editing_crop`), or on that of the nearest trained size. Codes stay."""
    cell = parts.pixels_per_code
    if isinstance(image, ImageCodes):
        return Shaped(image, None, drawn_size(parts, (image.height, image.width)))
    settings = parts.image_tokenizer.settings
    crop = editing_crop(image.height, image.width, settings, fit)
    notices = (crop.notice,) if fit == "auto" and crop.large and not settings.edit_scale else ()
    size = drawn_size(parts, (crop.target[0] // settings.patch_size, crop.target[1] // settings.patch_size))
    native = nearest(parts, size)
    if size == native or other_size == "draw":
        return Shaped(crop_for_editing(image, settings, fit), crop, size, notices)
    if other_size == "refuse":
        raise _refused(parts, size)
    target = (native[0] // cell * settings.patch_size, native[1] // cell * settings.patch_size)
    given = f"the image of {image.width} x {image.height} px"
    notice = f"this model was trained for {named_sizes(parts)} px: {given} was squeezed to that shape"
    squeezed = image.resize((target[1], target[0]), Image.Resampling.BICUBIC)
    return Shaped(squeezed, replace(crop, scaled=target, target=target), size, (notice,))


def drawn_size(parts: Parts, grid: tuple[int, int]) -> Size:
    """The size of an image that is drawn on a grid of codes."""
    return grid[0] * parts.pixels_per_code, grid[1] * parts.pixels_per_code
