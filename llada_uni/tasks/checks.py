"""Checks of what people pass to the tasks: each gives the value back or raises UserError with what is
allowed.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image

from llada_uni.errors import UserError
from llada_uni.image.code_files import is_code_file, read_codes
from llada_uni.image.codes import ImageCodes
from llada_uni.image.preprocess import open_image

Picture = str | os.PathLike[str] | bytes | Image.Image | ImageCodes
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
    """One picture or a sequence of them, opened; codes stay codes. At least one."""
    if isinstance(pictures, str | os.PathLike | bytes | Image.Image | ImageCodes):
        pictures = [pictures]
    if not isinstance(pictures, Sequence) or not pictures:
        raise UserError("at least one picture is needed: a path, bytes, a PIL image or codes, or a list of these")
    return [open_picture(picture) for picture in pictures]


def open_picture(picture: Any) -> Image.Image | ImageCodes:
    """An image: opened, or its codes where it is given as such, or as a file of codes (image/code_files.py)."""
    if isinstance(picture, ImageCodes):
        return picture
    return read_codes(picture) if is_code_file(picture) else open_image(picture)
