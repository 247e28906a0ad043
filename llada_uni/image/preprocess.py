"""From a picture to exactly the pixels that the image tokenizer reads.

An opened picture (reader.py) -> one of two shapings, `resize_for_understanding` (keeps the shape) or `crop_for_editing` (one
of a list of sizes) -> `to_patches`.
Sizes are (height, width) in this file, except PIL's own `.size`, which is (width, height).
Axes: N patches, C color channels, P patch side.
"""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image

from llada_uni.errors import UserError
from llada_uni.image.geometry import Preprocessing, center, editing_crop, understanding_crop
from llada_uni.image.reader import flatten_alpha


def resize_for_understanding(
    picture: Image.Image, alone: bool = True, settings: Preprocessing | None = None
) -> Image.Image:
    """The picture as questions see it: bicubic, shape kept, center crop to multiples of `size_factor`.

    `alone`: the only picture of the prompt (a larger one is allowed then).
    """
    picture = flatten_alpha(picture)
    width, height = picture.size
    scaled, crop = understanding_crop(height, width, alone, settings or Preprocessing())
    return _center_crop(picture.resize((scaled[1], scaled[0]), Image.Resampling.BICUBIC), *crop)


def crop_for_editing(picture: Image.Image, settings: Preprocessing | None = None, fit: str | None = None) -> Image.Image:
    """The picture as edits see it: the center of the allowed size that fits its shape best (`geometry.editing_crop`).

    fit: "crop" as published, "resize" (bicubic) before the crop, "auto" by the size of the picture; None: as the model was
    trained, which `settings.edit_scale` says.
    """
    picture = flatten_alpha(picture)
    crop = editing_crop(picture.height, picture.width, settings or Preprocessing(), fit)
    if crop.resized:
        picture = picture.resize((crop.scaled[1], crop.scaled[0]), Image.Resampling.BICUBIC)
    return _center_crop(picture, *crop.target)


def _center_crop(picture: Image.Image, height: int, width: int) -> Image.Image:
    left, top = center(picture.width, width), center(picture.height, height)
    return picture.crop((left, top, left + width, top + height))


def to_patches(picture: Image.Image, settings: Preprocessing) -> tuple[torch.Tensor, int, int]:
    """(patches [N, C * P * P] float32 normalized, rows, columns); patches in raster order, each channel
    first.

    Raises UserError when a side is no multiple of the patch size.
    """
    side = settings.patch_size
    if picture.width % side or picture.height % side:
        raise UserError(
            f"a picture of {picture.width} x {picture.height} px does not divide into patches of {side} px; "
            "use the mode understand or edit, which scale it"
        )
    rows, columns = picture.height // side, picture.width // side
    pixels = torch.from_numpy(np.array(picture.convert("RGB"), dtype=np.float32)) * settings.rescale_factor
    pixels = (pixels - torch.tensor(settings.image_mean)) / torch.tensor(
        settings.image_std
    )  # [rows*P, columns*P, C]
    grid = pixels.view(rows, side, columns, side, 3).permute(0, 2, 4, 1, 3)  # [rows, columns, C, P, P]
    return grid.reshape(rows * columns, -1).contiguous(), rows, columns
