"""One reader for images at every door: whatever holds an image -> RGB, upright, checked.

A path (also with ~), bytes, an open file, a data URI, a PIL image of any mode, an array or tensor (arrays.py) -> `open_image`.
What is transparent shows white. Sizes here are PIL's own: (width, height).
"""

from __future__ import annotations

import io
import os
import warnings
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from PIL import ExifTags, Image, ImageOps

from llada_uni.errors import UserError
from llada_uni.image.arrays import image_of, is_array, to_levels
from llada_uni.image.data_uri import is_data_uri, read_data_uri
from llada_uni.image.paths import image_file

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
_UNNAMED = "the picture"
Source = str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryIO | Image.Image | np.ndarray | torch.Tensor
WHAT = "a path, bytes, an open file, a data URI, a PIL image, or an array or tensor"  # the words for `Source`


def open_image(source: Source | Any) -> Image.Image:
    """A checked RGB picture, upright (EXIF), transparency laid on white.

    The size of a file is checked in its header, before any pixel is decoded. Raises UserError for a missing file, for something
    that is no picture or is damaged, for arrays whose shape or range is no image's, and for sizes out of the limits (stated
    in the message).
    """
    name, picture = _opened(source)
    _check_size(name, *picture.size)
    try:
        picture.load()
        upright = ImageOps.exif_transpose(picture)
    except Exception as error:  # a decoder fed with damaged bytes raises nearly anything
        raise UserError(f"{name} is damaged and cannot be read ({_one_line(error)})") from error
    try:
        return flatten_alpha(upright)
    except UserError as error:
        raise UserError(f"{name}: {error}") from None
    except Exception as error:
        raise UserError(f"{name} is damaged and cannot be read ({_one_line(error)})") from error


def image_size(source: Source | Any) -> tuple[int, int]:
    """(width, height) that `open_image` would give, of a file from its header alone. UserError as there, but not for damaged
    pixels. Of a PNG whose orientation stands behind its pixels, the size as stored."""
    name, picture = _opened(source)
    _check_size(name, *picture.size)
    try:
        if picture.format == "PNG":  # whose getexif reads all pixels
            exif = Image.Exif()
            exif.load(picture.info.get("exif", b""))
        else:
            exif = picture.getexif()
    except Exception as error:
        raise UserError(f"{name} is damaged and cannot be read ({_one_line(error)})") from error
    sideways = exif.get(ExifTags.Base.Orientation) in _SIDEWAYS
    return (picture.height, picture.width) if sideways else picture.size


def _opened(source: Any) -> tuple[str, Image.Image]:
    """(what messages call it, the picture)."""
    if isinstance(source, Image.Image):
        return _UNNAMED, source
    if is_array(source):
        return _UNNAMED, image_of(source)
    if isinstance(source, bytes | bytearray | memoryview):
        return _UNNAMED, _open(_UNNAMED, io.BytesIO(bytes(source)))
    if isinstance(source, str) and is_data_uri(source):
        return _UNNAMED, _open(_UNNAMED, io.BytesIO(read_data_uri(source)))
    if isinstance(source, str | os.PathLike):
        return str(source), _open(str(source), image_file(source))
    if callable(getattr(source, "read", None)):
        return _UNNAMED, _open(_UNNAMED, io.BytesIO(_content(source)))
    raise UserError(f"a picture is {WHAT}, not {type(source).__name__}")


def _content(file: Any) -> bytes:
    """All bytes of an open file, from its beginning where it can be wound back: a file just written stands at its end."""
    try:
        if callable(getattr(file, "seek", None)) and file.seekable():
            file.seek(0)
        data = file.read()
    except (OSError, ValueError, AttributeError) as error:
        raise UserError(f"the open file of a picture cannot be read ({_one_line(error)})") from error
    if not isinstance(data, bytes):
        raise UserError("the open file of a picture must be opened as bytes: open(name, 'rb')")
    return data


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
    """RGB of any mode; transparent places show white. Grays of more than 8 bits are scaled by their range, not clipped."""
    if picture.mode.startswith("I") or picture.mode == "F":
        return _wide_gray_to_rgb(picture)
    if picture.mode == "La":  # PIL turns it into nothing but its own kind
        picture = picture.convert("LA")
    if picture.mode in ("RGBA", "LA", "PA", "RGBa") or "transparency" in picture.info:
        picture = picture.convert("RGBA")
        white = Image.new("RGBA", picture.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, picture).convert("RGB")
    return picture.convert("RGB")


def _wide_gray_to_rgb(picture: Image.Image) -> Image.Image:
    """PIL clips grays above 255; a 16-bit file would come out white. White is 65535 in 16 bits, else what the range says."""
    gray = np.asarray(picture)
    if picture.mode == "F":
        gray = np.nan_to_num(gray, nan=0.0, posinf=0.0, neginf=0.0)
    return Image.fromarray(to_levels(gray)).convert("RGB")
