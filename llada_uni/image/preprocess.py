"""From a file or picture to exactly the pixels that the image tokenizer reads.

Path, bytes or PIL picture -> `open_image` (checked, upright, RGB on white) -> one of two
shapings, `resize_for_understanding` (keeps the shape) or `crop_for_editing` (one of a list of sizes) ->
`to_patches`.
Sizes are (height, width) in this file, except PIL's own `.size`, which is (width, height).
Axes: N patches, C color channels, P patch side.
"""

from __future__ import annotations

import io
import os
import warnings
from pathlib import Path

import numpy as np
import torch
from PIL import ExifTags, Image, ImageOps

from llada_uni.errors import UserError
from llada_uni.image.geometry import Preprocessing, center, editing_crop, understanding_crop

MIN_SIDE, MAX_SIDE = 2, 16384
MAX_AREA = 64 * 2**20  # 64 Mpx
MAX_RATIO = 200
_SIDEWAYS = (5, 6, 7, 8)  # EXIF orientations that swap width and height
# Only formats that are decoded in process (EPS, for one, would start another program).
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF")
_LIMITS = (
    f"allowed: sides {MIN_SIDE} to {MAX_SIDE} px, at most {MAX_AREA // 2**20} megapixels (2^20 px each), "
    f"longer side at most {MAX_RATIO} times the shorter"
)


def open_image(source: str | os.PathLike[str] | bytes | Image.Image) -> Image.Image:
    """A checked RGB picture, upright (EXIF), transparency laid on white.

    The size is checked in the file's header, before any pixel is decoded. Raises UserError for a missing
    file, for something that is no picture or is damaged, and for sizes out of the limits (stated in the
    message).
    """
    name, picture = _checked(source)
    try:
        picture.load()
        upright = ImageOps.exif_transpose(picture)
        return flatten_alpha(upright)
    except UserError:
        raise
    except Exception as error:  # a decoder fed with damaged bytes raises nearly anything
        raise UserError(f"{name} is damaged and cannot be read ({_one_line(error)})") from error


def image_size(source: str | os.PathLike[str] | bytes) -> tuple[int, int]:
    """(width, height) that `open_image` would give, from the file's header alone. UserError as there, but not for damaged
    pixels. Of a PNG whose orientation stands behind its pixels, the size as stored."""
    name, picture = _checked(source)
    try:
        if picture.format == "PNG":  # whose getexif reads all pixels
            exif = Image.Exif()
            exif.load(picture.info.get("exif", b""))
        else:
            exif = picture.getexif()
        sideways = exif.get(ExifTags.Base.Orientation) in _SIDEWAYS
    except Exception as error:
        raise UserError(f"{name} is damaged and cannot be read ({_one_line(error)})") from error
    return (picture.height, picture.width) if sideways else picture.size


def _checked(source: str | os.PathLike[str] | bytes | Image.Image) -> tuple[str, Image.Image]:
    """Its name and the picture, of which only the header has been read."""
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
    return name, picture


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
    """RGB of any mode; transparent places show white. 16-bit and float grays are scaled, not clipped."""
    if picture.mode.startswith("I") or picture.mode == "F":
        return _wide_gray_to_rgb(picture)
    if picture.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in picture.info:
        picture = picture.convert("RGBA")
        white = Image.new("RGBA", picture.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, picture).convert("RGB")
    return picture.convert("RGB")


def _wide_gray_to_rgb(picture: Image.Image) -> Image.Image:
    """PIL clips grays above 255; a 16-bit file would come out white. Full scale is 65535 (a float file's: 1
    or 255)."""
    gray = np.nan_to_num(np.asarray(picture).astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)
    if picture.mode == "F":
        top = 1.0 if gray.max(initial=0.0) <= 1.0 else 255.0
    else:
        top = 65535.0
    eight = np.clip(np.rint(gray * (255.0 / top)), 0, 255).astype(np.uint8)
    return Image.fromarray(eight, "L").convert("RGB")


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
