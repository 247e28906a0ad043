"""From a file or picture to exactly the pixels that the image tokenizer reads.

What flows through: path, bytes or PIL picture -> `open_image` (checked, upright, RGB on white) -> one of two
shapings, `resize_for_understanding` (keeps the shape) or `crop_for_editing` (one of a list of sizes) ->
`to_patches`.
Sizes are (height, width) in this file, except PIL's own `.size`, which is (width, height).
Axes: N patches, C colour channels, P patch side.
"""

from __future__ import annotations

import io
import math
import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps

from llada_uni.errors import UserError

MIN_SIDE, MAX_SIDE = 2, 16384
MAX_AREA = 64 * 2**20  # 64 Mpx
MAX_RATIO = 200
# Only formats that are decoded in process (EPS, for one, would start another program).
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF")
_LIMITS = (
    f"allowed: sides {MIN_SIDE} to {MAX_SIDE} px, at most {MAX_AREA // 2**20} megapixels (2^20 px each), "
    f"longer side at most {MAX_RATIO} times the shorter"
)


@dataclass(frozen=True)
class Preprocessing:
    """How pictures are scaled and normalised; read from `preprocessor_config.json`.

    The first four fields are the released file's own. The others are our optional keys; their defaults are
    the released numbers (arXiv:2604.20796; pixels are areas, cells are squares of `size_factor` px), and
    `edit_scale` is explained at `crop_for_editing`. A model for squares of 64 px only would set understand_*
    to 4000, 4200 and 4200: with exactly 4096 rounding decides whether some sides give 64 or 32.
    """

    patch_size: int = 16
    rescale_factor: float = 1 / 255
    image_mean: tuple[float, ...] = (0.5, 0.5, 0.5)
    image_std: tuple[float, ...] = (0.5, 0.5, 0.5)
    size_factor: int = 32
    understand_min_pixels: int = 128 * 128
    understand_max_pixels: int = 800 * 800
    understand_max_pixels_multi: int = 448 * 448
    edit_max_cells: int = 256
    edit_scale: bool = False

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Preprocessing:
        """Reads the known keys, ignores the others (the released file has some of other models). UserError if
        unusable."""
        known = {field.name: data[field.name] for field in fields(cls) if field.name in data}
        for name in ("image_mean", "image_std"):
            if name in known:
                known[name] = tuple(known[name])
        if "patch_size" not in known:
            raise UserError('preprocessor_config.json lacks the field "patch_size"')
        for name, value in known.items():
            if name in ("image_mean", "image_std", "edit_scale"):
                continue
            if not (isinstance(value, int | float) and value > 0):
                raise UserError(f'preprocessor_config.json: "{name}" must be a number above 0, not {value!r}')
        settings = cls(**known)
        if settings.size_factor % settings.patch_size:
            raise UserError(
                f"preprocessor_config.json: size_factor {settings.size_factor} is no multiple of "
                f"patch_size {settings.patch_size}"
            )
        return settings

    def to_json(self) -> dict[str, Any]:
        """The whole file: the released layout's keys, then ours."""
        ours = {field.name: getattr(self, field.name) for field in fields(self)}
        ours.update(image_mean=list(self.image_mean), image_std=list(self.image_std))
        return {"do_rescale": True, "do_normalize": True, "temporal_patch_size": 1, "merge_size": 1, **ours}


def open_image(source: str | os.PathLike[str] | bytes | Image.Image) -> Image.Image:
    """A checked RGB picture, upright (EXIF), transparency laid on white.

    The size is checked in the file's header, before any pixel is decoded. Raises UserError for a missing
    file, for something that is no picture or is damaged, and for sizes out of the limits (stated in the
    message).
    """
    if isinstance(source, Image.Image):
        name, picture = "the picture", source
    elif isinstance(source, bytes | bytearray | memoryview):
        name = "the picture"
        picture = _open(name, io.BytesIO(bytes(source)))
    elif isinstance(source, str | os.PathLike):
        name = str(source)
        path = Path(source)
        if path.is_dir():
            raise UserError(f"{name} is a directory, a picture file was expected")
        if not path.is_file():
            raise UserError(f"there is no picture {name}")
        picture = _open(name, path)
    else:
        raise UserError(f"a picture is a path, bytes or a PIL image, not {type(source).__name__}")
    _check_size(name, *picture.size)
    try:
        picture.load()
        upright = ImageOps.exif_transpose(picture)
        return flatten_alpha(upright)
    except UserError:
        raise
    except Exception as error:  # a decoder fed with damaged bytes raises nearly anything
        raise UserError(f"{name} is damaged and cannot be read ({_one_line(error)})") from error


def _open(name: str, file: Path | io.BytesIO) -> Image.Image:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # our own limit speaks instead
            return Image.open(file, formats=FORMATS)
    except Image.DecompressionBombError as error:
        raise UserError(f"{name} is too large; {_LIMITS}") from error
    except Exception as error:
        raise UserError(f"{name} is no picture that can be read (formats: {', '.join(FORMATS)})") from error


def _check_size(name: str, width: int, height: int) -> None:
    short, long = min(width, height), max(width, height)
    if short < MIN_SIDE or long > MAX_SIDE or width * height > MAX_AREA or long > MAX_RATIO * short:
        raise UserError(f"{name} has {width} x {height} px; {_LIMITS}")


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:120] or type(error).__name__


def flatten_alpha(picture: Image.Image) -> Image.Image:
    """RGB of any mode; transparent places show white. 16-bit and float greys are scaled, not clipped."""
    if picture.mode.startswith("I") or picture.mode == "F":
        return _wide_grey_to_rgb(picture)
    if picture.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in picture.info:
        picture = picture.convert("RGBA")
        white = Image.new("RGBA", picture.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, picture).convert("RGB")
    return picture.convert("RGB")


def _wide_grey_to_rgb(picture: Image.Image) -> Image.Image:
    """PIL clips greys above 255; a 16-bit file would come out white. Full scale is 65535 (a float file's: 1
    or 255)."""
    grey = np.nan_to_num(np.asarray(picture).astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)
    if picture.mode == "F":
        top = 1.0 if grey.max(initial=0.0) <= 1.0 else 255.0
    else:
        top = 65535.0
    eight = np.clip(np.rint(grey * (255.0 / top)), 0, 255).astype(np.uint8)
    return Image.fromarray(eight, "L").convert("RGB")


def understanding_size(
    height: int, width: int, factor: int, min_pixels: int, max_pixels: int
) -> tuple[int, int]:
    """(height, width), multiples of `factor`, nearest to the picture's shape with an area in the given
    bounds.

    Sides are rounded to the nearest multiple; if the area is then out of bounds, both sides are scaled by the
    same number and rounded inwards. No side falls below `factor`, so extreme shapes may miss the bounds
    (released rule).
    """
    target_h, target_w = (max(factor, round(side / factor) * factor) for side in (height, width))
    if target_h * target_w > max_pixels:
        # Multiplied, not divided: 800 x 800 into 448 x 448 lands a hair below 448, and the record has 416.
        scale = math.sqrt(max_pixels / (height * width))
        return tuple(max(factor, math.floor(side * scale / factor) * factor) for side in (height, width))
    if target_h * target_w < min_pixels:
        scale = math.sqrt(min_pixels / (height * width))
        return tuple(math.ceil(side * scale / factor) * factor for side in (height, width))
    return target_h, target_w


def covered_size(height: int, width: int, target_h: int, target_w: int) -> tuple[int, int]:
    """(height, width) of the picture scaled, shape kept, until it covers the target."""
    scale = max(target_h / height, target_w / width)
    return round(height * scale), round(width * scale)


def understanding_crop(
    height: int, width: int, alone: bool, settings: Preprocessing
) -> tuple[tuple[int, int], tuple[int, int]]:
    """((height, width) after scaling, (height, width) after the centre crop) for a question about the
    picture.

    The crop keeps every whole multiple of the factor, so a long picture may come out longer than
    `understanding_size`.
    """
    factor = settings.size_factor
    most = settings.understand_max_pixels if alone else settings.understand_max_pixels_multi
    target = understanding_size(height, width, factor, settings.understand_min_pixels, most)
    scaled = covered_size(height, width, *target)
    crop = tuple(max(want, side // factor * factor) for side, want in zip(scaled, target, strict=True))
    return scaled, crop


def resize_for_understanding(
    picture: Image.Image, alone: bool = True, settings: Preprocessing | None = None
) -> Image.Image:
    """The picture as questions see it: bicubic, shape kept, centre crop to multiples of `size_factor`.

    `alone`: the only picture of the prompt (a larger one is allowed then).
    """
    picture = flatten_alpha(picture)
    width, height = picture.size
    scaled, crop = understanding_crop(height, width, alone, settings or Preprocessing())
    return _centre_crop(picture.resize((scaled[1], scaled[0]), Image.Resampling.BICUBIC), *crop)


@lru_cache(maxsize=16)
def editing_sizes(max_cells: int, cell: int, max_ratio: float = 4.0) -> tuple[tuple[int, int], ...]:
    """All (width, height) that an edited picture may have: for every number of columns the tallest grid of at
    most
    `max_cells` cells, and for every number of rows the widest, side ratio at most `max_ratio`; from wide to
    tall.

    These are the corners and edges of the staircase rows * columns <= max_cells, walked from one row to one
    column.
    """
    sizes = []
    columns, rows = max_cells, 1
    while columns:
        if max(columns, rows) <= max_ratio * min(columns, rows):
            sizes.append((columns * cell, rows * cell))
        if columns * (rows + 1) <= max_cells:
            rows += 1
        else:
            columns -= 1
    return tuple(sizes)


def editing_size(height: int, width: int, max_cells: int, cell: int) -> tuple[int, int]:
    """(height, width) of the allowed size whose shape fits the picture best: least is cut away when it is
    covered."""

    def kept(size: tuple[int, int]) -> float:
        across, down = size[0] / width, size[1] / height
        return min(across, down) / max(across, down)

    # Ties go to the wider size, as in the released rule.
    best_w, best_h = max(editing_sizes(max_cells, cell), key=lambda size: (kept(size), size))
    return best_h, best_w


def crop_for_editing(picture: Image.Image, settings: Preprocessing | None = None) -> Image.Image:
    """The picture as edits see it: the centre of the allowed size that fits its shape best.

    The released rule does not scale: a large picture shows its middle only, a small one gets black at the
    right and the bottom. With `settings.edit_scale` the picture is first scaled (bicubic) until it covers the
    size.
    """
    settings = settings or Preprocessing()
    picture = flatten_alpha(picture)
    target_h, target_w = editing_size(
        picture.height, picture.width, settings.edit_max_cells, settings.size_factor
    )
    if settings.edit_scale:
        scaled_h, scaled_w = covered_size(picture.height, picture.width, target_h, target_w)
        picture = picture.resize((scaled_w, scaled_h), Image.Resampling.BICUBIC)
    return _centre_crop(picture, target_h, target_w)


def _centre_crop(picture: Image.Image, height: int, width: int) -> Image.Image:
    left, top = max(0, (picture.width - width) // 2), max(0, (picture.height - height) // 2)
    return picture.crop((left, top, left + width, top + height))


def to_patches(picture: Image.Image, settings: Preprocessing) -> tuple[torch.Tensor, int, int]:
    """(patches [N, C * P * P] float32 normalised, rows, columns); patches in raster order, each channel
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
