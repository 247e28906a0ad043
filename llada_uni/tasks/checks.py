"""Checks of what people pass to the tasks: each gives the value back or raises UserError with what is
allowed.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from PIL import Image

from llada_uni.errors import UserError
from llada_uni.image.arrays import images_of, is_array
from llada_uni.image.code_files import is_code_file, read_codes
from llada_uni.image.codes import ImageCodes
from llada_uni.image.reader import WHAT, Source, open_image
from llada_uni.results import ChatResult, DrawnImage, PartialImage

Picture = Source | ImageCodes | DrawnImage | PartialImage
LARGEST_SEED = 2**63 - 1


def check_text(text: Any, what: str) -> str:
    """A string that is not blank."""
    if not isinstance(text, str):
        raise UserError(f"the {what} must be a string, not {type(text).__name__}")
    if not text.strip():
        raise UserError(f"the {what} is empty: say something in words")
    return text


def check_seed(seed: Any) -> int:
    """A seed from 0 to 2^63 - 1; None draws one, so that every result can name its seed."""
    if seed is None:
        return secrets.randbelow(2**31)
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed <= LARGEST_SEED:
        raise UserError(f"the seed must be a whole number from 0 to 2^63 - 1, not {seed!r}")
    return seed


def generator_of(seed: int) -> torch.Generator:
    """A generator on the CPU, so that a seed means the same on every device."""
    return torch.Generator().manual_seed(seed)


def check_grid(height: Any, width: Any, cell: int) -> tuple[int, int]:
    """(rows, columns) of codes for a picture of height x width pixels; sides must be multiples of `cell`."""
    for name, side in (("height", height), ("width", width)):
        if isinstance(side, bool) or not isinstance(side, int) or side < 1 or side % cell:
            raise UserError(f"the {name} must be a multiple of {cell} pixels, not {side!r}")
    return height // cell, width // cell


def check_pictures(pictures: Any) -> list[Image.Image | ImageCodes]:
    """One picture or several of them, opened; codes stay codes. At least one.

    Several: a list or the like, an array or tensor of four axes, or a generator.
    """
    if is_array(pictures):
        return [open_image(picture) for picture in images_of(pictures)]
    one = str | os.PathLike | bytes | bytearray | memoryview | Image.Image | ImageCodes | DrawnImage | PartialImage | ChatResult
    if isinstance(pictures, one) or callable(getattr(pictures, "read", None)):
        pictures = [pictures]
    if not isinstance(pictures, Iterable) or isinstance(pictures, Mapping) or not (pictures := list(pictures)):
        raise UserError(f"at least one picture is needed: {WHAT}, codes, a result, or a list of these")
    return [open_picture(picture) for picture in pictures]


def open_picture(picture: Any) -> Image.Image | ImageCodes:
    """An image: opened (image/reader.py), or its codes where it is given as such, as a file of codes (image/code_files.py), or
    as a result of ours, whose codes say more than its pixels.
    """
    if isinstance(picture, ImageCodes):
        return picture
    if isinstance(picture, DrawnImage):
        return picture.codes
    if isinstance(picture, PartialImage):
        return open_image(picture.image)
    if isinstance(picture, ChatResult):
        drawn = [part for part in picture.parts if isinstance(part, DrawnImage)]
        if len(drawn) != 1:
            raise UserError(f"one picture is expected, not an answer with {len(drawn)} of them: give one of its parts")
        return drawn[0].codes
    return read_codes(picture) if is_code_file(picture) else open_image(picture)
